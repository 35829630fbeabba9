from bench.analysis.pareto import standings
from bench.report.charts.pareto import pareto
from tests import synthetic
from tests.unit.report.charts.made_up import material, rows


def test_every_cell_is_a_point_with_its_standing():
    of = material()
    by_time, by_memory = pareto(of)
    assert (by_time.name, by_memory.name) == ("pareto-time", "pareto-memory")
    expected = standings(of.table, "total_s", of.axes, eval_size=synthetic.EVALUATED)
    found = rows(by_time.drawing)
    assert [row["standing"] for row in found] == list(expected["standing"])
    assert len(found) == 12
    assert found[0]["said"].endswith(" s")
    assert "total time" in str(by_time.drawing.spec)


def test_only_cells_that_count_have_bars():
    found = rows(next(iter(pareto(material()))).drawing)
    assert {row["standing"] for row in found if "low" in row} <= {"front", "not told apart"}
    assert any("low" in row for row in found)


def test_money_has_the_front_of_time():
    by_time, by_memory = pareto(material())
    assert "its front is the same" in by_time.caption
    assert "Money" not in by_memory.caption


def test_without_accuracy_there_is_no_front():
    bare = material()
    bare.table["eval_accuracy"] = None
    assert not list(pareto(bare))
