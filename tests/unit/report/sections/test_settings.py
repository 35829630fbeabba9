from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.report.sections.settings import choices_section
from tests.factories import cell, measurement, record


def run(malloc, length, total_s, step_s):
    measured = measurement(total_s=total_s, step_median_s=step_s, eval_accuracy=0.8)
    return record(cell(max_length=length, malloc=malloc), measurement=measured)


RUNS = [
    run("default", 16, 10.0, 1.0),
    run("default", 32, 40.0, 4.0),
    run("keep", 16, 10.0, 1.0),
    run("keep", 32, 20.0, 2.0),
]


def section(records):
    return choices_section(cells_table(records), varying_axes(records))


def test_the_largest_pair_is_said_and_all_are_shown():
    found = section(RUNS)
    (said,) = found.paragraphs
    assert said.startswith(
        "malloc keep over default, in 2 pairs of cells (the geometric mean of their ratios): 0.71x the total time"
        " (no interval: too few runs), 0.71x"
    )
    assert "; at length 32: 0.50x the total time" in said
    (table,) = found.tables
    assert table.title == "malloc keep over default: ratios of costs, difference of accuracy"
    assert table.columns[:3] == ("length", "total time", "step time")
    assert [row[:2] for row in table.rows] == [
        ("16", "1.00x"),
        ("32", "0.50x"),
        ("all: mean", "0.71x"),
    ]
    assert {len(row) for row in table.rows} == {len(table.columns)} == {len(table.numeric)}


def test_one_pair_needs_no_mean():
    found = section([RUNS[0], RUNS[2]])
    assert found.paragraphs[0].startswith("malloc keep over default: 1.00x the total time")
    assert len(found.tables[0].rows) == 1


def test_a_grid_without_choices_says_nothing():
    found = section(RUNS[:2])
    assert (found.paragraphs, found.tables) == ((), ())
