from ftbench.analysis.tables.ranks_table import COLUMNS, ranks_table
from ftbench.records.collectives import Collectives
from ftbench.records.predicted_peaks import PredictedPeaks
from tests.factories import cell, measurement, record


def two_ranks(**changes):
    one = measurement(memory={"peak_rss_bytes": 5, "peak_cpu_tensors_bytes": 3})
    second = {"rank": 1, "collectives": Collectives(seconds=0.2, exposed_s=0.1)}
    ranks = (one.ranks[0], one.ranks[0].model_copy(update=second))
    measured = one.model_copy(update={"ranks": ranks})
    return record(cell(num_processes=2), measurement=measured, **changes)


def test_there_is_one_row_per_rank():
    table = ranks_table([record(), two_ranks()])
    assert list(table.columns) == list(COLUMNS)
    assert list(table["rank"]) == [0, 1]
    assert set(table["num_processes"]) == {2}
    assert list(table["peak_rss_bytes"]) == [5, 5]
    assert list(table["collectives_s"].fillna(0)) == [0, 0.2]
    assert list(table["exposed_s"].fillna(0)) == [0, 0.1]
    assert list(table["device"]) == ["cpu", "cpu"]


def test_the_predicted_peak_stands_beside_the_measured_one():
    peaks = PredictedPeaks(tensors_bytes=4, rank_tensors_bytes=(4, 2))
    table = ranks_table([two_ranks(predicted=peaks)])
    assert list(table["predicted_tensors_bytes"]) == [4, 2]
    assert list(table["peak_cpu_tensors_bytes"]) == [3, 3]


def test_without_several_processes_it_is_empty():
    failed = record(cell(num_processes=2), status="crashed", measurement=None)
    assert ranks_table([record(), failed]).empty
