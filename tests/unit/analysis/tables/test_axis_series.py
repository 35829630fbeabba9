import math

import pytest

from ftbench.analysis.tables.axis_series import series_along
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from tests.factories import cell, measurement, record


def planted(length, batch, replicate=0, noise=0.0, accuracy=0.7):
    """Return a record whose step takes 0.01 * length * batch seconds."""
    step = 0.01 * length * batch + noise
    measured = measurement(
        step_median_s=step, eval_accuracy=accuracy, memory={"peak_rss_bytes": 1000 * length}
    )
    one = cell(max_length=length, per_device_train_batch_size=batch)
    return record(one, replicate=replicate, measurement=measured)


def series_of(records, axis):
    table = cells_table(records)
    return series_along(table, axis, varying_axes(records))


def test_a_planted_law_gives_its_ratios_back():
    found = series_of([planted(n, b) for n in (16, 32, 64) for b in (4, 8)], "max_length")
    assert [series.fixed["per_device_train_batch_size"] for series in found] == [4, 8]
    for series in found:
        assert list(series.values.index) == [16, 32, 64]
        assert math.isnan(series.ratios["step_median_s"].iloc[0])
        assert list(series.ratios["step_median_s"])[1:] == pytest.approx([2.0, 2.0])
        assert list(series.ratios["peak_rss_bytes"])[1:] == pytest.approx([2.0, 2.0])
        assert list(series.ratios["samples_per_s"])[1:] == pytest.approx([0.5, 0.5])


def test_replicates_are_one_row_by_their_median_and_accuracy_by_its_mean():
    records = [
        planted(length, 4, replicate, noise, accuracy)
        for length in (16, 32)
        for replicate, (noise, accuracy) in enumerate([(0.0, 0.5), (9.0, 0.6), (0.0, 0.9)])
    ]
    (series,) = series_of(records, "max_length")
    assert list(series.values["runs"]) == [3, 3]
    assert list(series.values["step_median_s"]) == pytest.approx([0.64, 1.28])
    assert list(series.values["eval_accuracy"]) == pytest.approx([2 / 3, 2 / 3])
    assert list(series.values["score_sd"]) == pytest.approx([0.2082, 0.2082], abs=1e-4)


def test_repeats_of_a_seed_are_no_evidence_on_accuracy():
    records = [
        planted(length, 4, replicate, accuracy=accuracy).model_copy(update={"repeat": repeat})
        for length in (16, 32)
        for replicate, accuracy in enumerate([0.5, 0.7])
        for repeat in range(3 if replicate == 0 else 1)
    ]
    (series,) = series_of(records, "max_length")
    assert list(series.values["runs"]) == [4, 4]
    assert list(series.values["eval_accuracy"]) == pytest.approx([0.6, 0.6])
    assert list(series.values["score_sd"]) == pytest.approx([0.1414, 0.1414], abs=1e-4)


def test_failed_cells_do_not_count():
    from ftbench.records.record import Failure

    failed = record(
        cell(max_length=64), status="oom", measurement=None, failure=Failure(message="m")
    )
    (series,) = series_of([planted(16, 4), planted(32, 4), failed], "max_length")
    assert list(series.values.index) == [16, 32]


def test_an_axis_of_one_value_has_no_chain():
    assert series_of([planted(16, 4), planted(32, 8)], "max_length") == []


def test_the_longest_chain_comes_first():
    records = [planted(16, 4), planted(32, 4), *(planted(n, 8) for n in (16, 32, 64))]
    found = series_of(records, "max_length")
    assert [len(series.values) for series in found] == [3, 2]
