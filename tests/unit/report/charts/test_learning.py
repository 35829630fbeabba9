import pytest

from ftbench.analysis.fits.laws import Refusal
from ftbench.report.charts.learning import learning
from ftbench.report.charts.pareto import ranked
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
    assert {row["kind"] for row in rows(found.drawing)} == {"run", "law", "mean"}
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
    assert "Cells that no law is fitted to" in some
    none = figure(curves=(learning_curve(fixed={"max_length": 999}),)).caption
    assert "No law is fitted" in none


def test_without_a_law_every_mean_has_the_interval_that_the_front_has():
    of = inputs()
    found = rows(figure().drawing)
    bars = {row["x"]: row for row in found if row["kind"] == "mean"}
    assert sorted(bars) == [100, 400]
    cells = ranked(of, "total_s").to_dict("records")
    first = {
        row["train_size"]: row
        for row in cells
        if (row["max_length"], row["per_device_train_batch_size"]) == (64, 4)
    }
    for size, bar in bars.items():
        expected = [first[size][name] for name in ("score", "score_low", "score_high")]
        assert [bar["y"], bar["low"], bar["high"]] == pytest.approx(expected, abs=1e-5)
        assert bar["low"] < bar["y"] < bar["high"]


def test_the_error_of_the_evaluation_documents_stands_beside_the_intervals():
    assert figure(curves=(learning_curve(evaluation_error=0.0612),)).caption.endswith(
        "Other evaluation examples would move the whole curve by up to ±0.061."
    )
    assert "evaluation examples" not in figure(curves=(learning_curve(),)).caption


def test_one_size_has_no_curve():
    assert not list(learning(inputs(synthetic.records((64, 128), (4,), (100,)))))
