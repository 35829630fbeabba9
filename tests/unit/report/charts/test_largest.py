from ftbench.records.batch_probe import BatchProbe
from ftbench.records.prediction import LargestBatch
from ftbench.report.charts.largest import largest
from tests.factories import cell, environment
from tests.unit.report.charts.made_up import rows


def tried(length, batch, *, fits, limit=2**32):
    return BatchProbe(
        cell=cell(max_length=length, per_device_train_batch_size=batch),
        batch=batch,
        limit_bytes=limit,
        limit="enforced",
        status="ok" if fits else "oom",
        fits=fits,
        peak_bytes=2**30,
        environment_id=environment().environment_id,
        wall_s=1.0,
    )


def predicted(length, certain, possible=None, gpu="t4"):
    return LargestBatch(
        cell_id="0" * 12,
        gpu=gpu,
        max_length=length,
        certain=certain,
        possible=possible or certain,
        reserved=None,
    )


def test_measured_and_predicted_batches_by_length():
    tries = [tried(64, 8, fits=True), tried(64, 9, fits=False), tried(128, 4, fits=True)]
    (figure,) = largest(tries, [predicted(64, 30, 34), predicted(128, 15)])
    found = {(row["series"], row["x"]): row for row in rows(figure.drawing)}
    assert found["measured, 4.0 GiB", 64]["y"] == 8
    assert found["measured, 4.0 GiB", 128]["y"] == 4
    assert found["t4, predicted", 64] == {
        "x": 64,
        "y": 30,
        "series": "t4, predicted",
        "possible": 34,
    }
    assert "possible" not in found["t4, predicted", 128]


def test_two_limits_are_two_series():
    tries = [tried(64, 8, fits=True), tried(64, 16, fits=True, limit=2**33)]
    (figure,) = largest(tries, [])
    assert {row["series"] for row in rows(figure.drawing)} == {
        "measured, 4.0 GiB",
        "measured, 8.0 GiB",
    }


def test_a_length_at_which_nothing_fits_has_no_point():
    assert not list(largest([tried(64, 1, fits=False)], [predicted(64, 0)]))


def test_nothing_tried_and_nothing_predicted_is_no_figure():
    assert not list(largest([], []))
