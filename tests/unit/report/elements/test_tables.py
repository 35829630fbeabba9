import pytest

from ftbench.analysis.tables.axis_series import series_along
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.report.elements.table import ABSENT
from ftbench.report.elements.tables import along, cells, figure_texts, format_figure
from tests.factories import cell, measurement, record, run_warning


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("eval_accuracy", 0.8304, "0.830"),
        ("total_s", 65.0, "1 min 05 s"),
        ("peak_rss_bytes", 2**30, "1.0 GiB"),
        ("mfu", 0.5987, "59.9%"),
        ("tokens_per_s", 1234.5, "1,234"),
        ("samples_per_s", 12.34, "12.3"),
        ("mfu", None, ABSENT),
        ("mfu", float("nan"), ABSENT),
    ],
)
def test_format_figure(name, value, text):
    assert format_figure(name, value) == text


def test_figures_that_no_cell_has_are_left_out():
    table = cells_table([record()])
    assert "peak RSS" in cells(table, varying_axes([record()])).columns
    assert "peak allocated" not in cells(table, varying_axes([record()])).columns


def test_a_card_has_columns_for_what_it_measured():
    on_card = measurement(
        memory={"peak_rss_bytes": 1, "peak_allocated_bytes": 2, "peak_reserved_bytes": 3}
    )
    one = record(measurement=on_card)
    assert {"peak allocated", "peak reserved"} <= set(
        cells(cells_table([one]), varying_axes([one])).columns
    )


def test_a_column_of_memory_has_one_unit():
    sizes = (673 * 2**20, 1659 * 2**20)
    two = [
        record(cell(max_length=length), measurement=measurement(memory={"peak_rss_bytes": size}))
        for length, size in zip((16, 32), sizes, strict=True)
    ]
    table, axes = cells_table(two), varying_axes(two)
    (series,) = series_along(table, "max_length", axes)
    for shown in (cells(table, axes), along(series)):
        place = shown.columns.index("peak RSS")
        texts = [row[place].partition(" (")[0] for row in shown.rows]
        assert texts == ["0.657 GiB", "1.62 GiB"]
        assert shown.leading[-3:] == ("accuracy", "total", "peak RSS")
    assert figure_texts("peak_rss_bytes", (*sizes, None)) == ["0.657 GiB", "1.62 GiB", ABSENT]
    assert figure_texts("total_s", (1.5, 90)) == ["1.50 s", "1 min 30 s"]


def test_a_warning_marks_its_row():
    warned = record(measurement=measurement(warnings=(run_warning("busy"),)))
    assert "ok (!)" in cells(cells_table([warned]), varying_axes([warned])).rows[0]


def test_seeds_get_a_column_where_there_are_several():
    two = [record(), record(replicate=1)]
    assert "seed" in cells(cells_table(two), varying_axes(two)).columns
    assert "seed" not in cells(cells_table(two[:1]), varying_axes(two[:1])).columns


def test_a_table_without_a_column():
    table = cells(cells_table([record()]), varying_axes([record()]))
    less = table.without("status")
    assert "status" not in less.columns
    assert len(less.columns) == len(less.rows[0]) == len(less.numeric) == len(table.columns) - 1


def test_along_has_ratios_in_brackets():
    records = [
        record(cell(max_length=n), measurement=measurement(step_median_s=n / 100)) for n in (16, 32)
    ]
    (series,) = series_along(cells_table(records), "max_length", varying_axes(records))
    table = along(series)
    assert table.title == "Along length, at batch 4, training examples 16"
    step = table.columns.index("step (median)")
    assert [row[step] for row in table.rows] == ["160 ms", "320 ms (2.00x)"]


def test_values_that_are_words_have_no_ratios():
    records = [record(cell(method=method)) for method in ("full", "lora")]
    (series,) = series_along(cells_table(records), "method", varying_axes(records))
    table = along(series)
    assert not any("x)" in text for row in table.rows for text in row)
    assert table.numeric[:2] == (False, True)


def test_accuracy_has_its_spread_over_replicates():
    records = [
        record(
            cell(max_length=n), replicate=r, measurement=measurement(eval_accuracy=0.6 + 0.1 * r)
        )
        for n in (16, 32)
        for r in (0, 1)
    ]
    (series,) = series_along(cells_table(records), "max_length", varying_axes(records))
    table = along(series)
    assert table.columns[:2] == ("length", "runs")
    assert table.rows[0][1] == "2"
    assert table.rows[0][-1] == "0.650 ± 0.071"


def test_cells_without_a_step_summary_have_a_table():
    one = record(measurement=measurement(steps=None))
    assert "total" in cells(cells_table([one]), varying_axes([one])).columns
