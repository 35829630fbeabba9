import pytest

from ftbench.analysis.fits.laws import Refusal
from ftbench.report.charts.learning import learning
from tests import synthetic
from tests.unit.report.charts.made_up import inputs, learning_curve, rows


def figure(**fields):
    (found,) = learning(inputs(**fields))
    return found


def test_replicates_are_points_and_the_law_goes_on_to_twice_the_documents():
    found = rows(figure(curves=(learning_curve(),)).drawing)
    assert len([row for row in found if row["kind"] == "run"]) == 4  # two sizes, two seeds
    law = [row for row in found if row["kind"] == "law"]
    assert law[0]["x"] == 100
    assert law[-1]["x"] == pytest.approx(800)
    assert law[-1]["y"] == pytest.approx(synthetic.accuracy(800), abs=1e-5)
    assert law[-1]["high"] - law[-1]["low"] == pytest.approx(0.02, abs=1e-4)
    assert [row["beyond"] for row in law].index(True) == len([r for r in law if r["x"] <= 400])


def test_the_limit_is_one_less_the_floor():
    found = rows(figure(curves=(learning_curve(),)).drawing)
    assert [row["y"] for row in found if row["kind"] == "limit"] == [0.92]


def test_means_have_their_intervals_and_seeds():
    means = [r for r in rows(figure(curves=(learning_curve(),)).drawing) if r["kind"] == "mean"]
    assert [(row["x"], row["seeds"]) for row in means] == [(100, 3), (400, 3)]
    assert all(row["low"] < row["y"] < row["high"] for row in means)


def test_a_refused_law_leaves_points_and_means_and_says_so():
    found = figure(curves=(Refusal("eval_accuracy", "3 sizes, 4 are needed"),))
    assert {row["kind"] for row in rows(found.drawing)} == {"run", "law"}
    assert "No law is fitted" in found.caption
    assert "area" not in str(found.drawing.spec)


def test_a_curve_is_that_of_its_own_cells():
    other = learning_curve(fixed={"max_length": 128, "per_device_train_batch_size": 8})
    drawing = figure(curves=(other,)).drawing
    with_law = [
        label for label, of in drawing.choices.items() if any(row["kind"] == "limit" for row in of)
    ]
    assert with_law == ["length 128, batch 8"]


def test_the_caption_says_what_is_drawn_for_cells_with_and_without_a_law():
    every = figure(curves=(learning_curve(),)).caption
    assert "Cells that no law is fitted to" not in every
    fixed = {"max_length": 128, "per_device_train_batch_size": 8}
    some = figure(curves=(learning_curve(fixed=fixed),)).caption
    assert some.startswith("Small points are runs")
    assert some.endswith(
        " Cells that no law is fitted to have their runs, and a line that joins the means."
    )
    none = figure(curves=(learning_curve(fixed={"max_length": 999}),)).caption
    assert none == "Points are runs, one per seed. No law is fitted; the line joins the means."


def test_the_error_of_the_evaluation_documents_stands_beside_the_intervals():
    assert figure(curves=(learning_curve(evaluation_error=0.0612),)).caption.endswith(
        "Other evaluation examples would move the whole curve by up to ±0.061."
    )
    assert "evaluation examples" not in figure(curves=(learning_curve(),)).caption


def test_one_size_has_no_curve():
    assert not list(learning(inputs(synthetic.records((64, 128), (4,), (100,)))))
