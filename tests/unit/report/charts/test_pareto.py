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


def test_only_cells_that_count_have_bars():
    found = rows(next(iter(pareto(inputs()))).drawing)
    assert {row["standing"] for row in found if "low" in row} <= {"front", "not distinguishable"}
    assert any("low" in row for row in found)


def test_money_has_the_front_of_time():
    by_time, by_memory = pareto(inputs())
    assert "its front is the same" in by_time.caption
    assert "Money" not in by_memory.caption


def evaluated(documents, size, accuracy):
    block = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [size]}
    (of,) = expand(profile(grid=[block]), model_source(), data_source(eval_size=documents)).cells
    return record(
        of,
        measurement=measurement(
            scores=(score(value=accuracy, examples=documents),), total_s=float(size)
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
