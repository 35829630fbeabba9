from ftbench.analysis.comparisons.pareto import standings
from ftbench.plan.grid import expand
from ftbench.report.charts.pareto import pareto, ranked
from tests.factories import data_source, measurement, model_source, profile, record, score
from tests.unit.report.charts.made_up import inputs, rows


def test_every_cell_is_a_point_with_its_standing():
    of = inputs()
    by_time, by_memory = pareto(of)
    assert (by_time.name, by_memory.name) == ("pareto-time", "pareto-memory")
    expected = standings(of.table, "total_s", of.axes)
    found = rows(by_time.drawing)
    assert [row["standing"] for row in found] == list(expected["standing"])
    assert len(found) == 12
    assert found[0]["said"].endswith(" s")
    assert "total time" in str(by_time.drawing.spec)


def test_every_point_with_a_standard_error_has_a_bar():
    found = rows(next(iter(pareto(inputs()))).drawing)
    assert all(row["low"] <= row["y"] <= row["high"] for row in found)


def test_the_caption_is_true_of_the_drawn_points():
    """The line joins points above every cheaper one: by the bars, even if their ends touch."""
    for figure in pareto(inputs()):
        found = rows(figure.drawing)
        line = [row for row in found if row["standing"] == "front"]
        assert "above that of every cheaper cell" in figure.caption
        for row in line:
            assert all(row["y"] > other["y"] for other in found if other["x"] < row["x"])


def test_points_that_only_guess_are_not_on_the_line():
    scores = ((16, 0.52), (32, 0.48), (64, 0.9))
    of = inputs([evaluated(100, size, value, guess=0.5) for size, value in scores])
    assert list(ranked(of, "total_s")["standing"]) == ["no better than guessing"] * 2 + ["front"]
    all_guess = inputs([evaluated(100, n, 0.5, guess=0.5) for n in (16, 32, 64)])
    for figure in pareto(all_guess):
        assert "0 of 3 cells" in figure.alt
        assert "front" not in {row["standing"] for row in rows(figure.drawing)}


def test_money_has_the_front_of_time():
    by_time, by_memory = pareto(inputs())
    assert "its front is the same" in by_time.caption
    assert "Money" not in by_memory.caption


def evaluated(documents, size, accuracy, guess=0.1):
    block = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [size]}
    (of,) = expand(profile(grid=[block]), model_source(), data_source(eval_size=documents)).cells
    return record(
        of,
        measurement=measurement(
            scores=(score(value=accuracy, examples=documents, guess=guess),), total_s=float(size)
        ),
    )


def test_each_score_has_the_error_of_its_own_evaluation_set():
    """The table beside the chart takes the same: 0.05 is nothing over 100 documents, all over 10,000."""
    of = inputs([evaluated(10_000, 16, 0.7), evaluated(100, 32, 0.75)])
    assert list(ranked(of, "total_s")["standing"]) == ["front", "not distinguishable"]


def test_without_accuracy_there_is_no_front():
    bare = inputs()
    bare.table["eval_accuracy"] = None
    assert not list(pareto(bare))
