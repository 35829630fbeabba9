from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.analysis.tables.scores_table import scores_table
from ftbench.report.sections.scores import scores_section
from tests.factories import cell, measurement, record, score


def section(*records):
    return scores_section(cells_table(records), scores_table(records), varying_axes(records))


def run(train_size, pearson, replicate=0, **figures):
    scores = (score("pearson", pearson, **figures), score("mse", 1 - pearson, guess=0.5))
    of = cell(train_size=train_size)
    return record(of, replicate=replicate, measurement=measurement(scores=scores))


def test_each_cell_has_its_scores_with_intervals_beside_guessing():
    found = section(run(16, 0.6, low=0.4, high=0.7, guess=0.0), run(32, 0.8))
    (table,) = found.tables
    assert table.columns[1:] == ("Pearson r", "guessing", "mean squared error", "guessing")
    assert table.rows == (
        ("16", "0.600 (0.400 to 0.700)", "0.000", "0.400", "0.500"),
        ("32", "0.800", "0.100", "0.200", "0.500"),
    )


def test_seeds_are_averaged_and_repeats_are_not():
    again = run(16, 0.6).model_copy(update={"repeat": 1})
    (row,) = section(run(16, 0.6), again, run(16, 0.8, replicate=1)).tables[0].rows
    assert row[0] == "0.700"


def test_untrusted_scores_are_left_out():
    found = section(run(16, 0.6), run(32, 1.5))
    assert found.tables[0].rows[1][1] == "–"  # noqa: RUF001
    assert section(record(measurement=measurement(eval_accuracy=None))).tables == ()
