"""Steps, with time, tokens and losses planted."""

import pandas as pd
import pytest
import torch

from bench.worker.steps import StepBook, document_flops, spread_warning, summarise, write_steps

FLOPS = (5, 100, 1)


class PlantedClock:
    """Marks at planted moments."""

    def __init__(self, moments):
        self._moments = list(moments)
        self.marked = 0

    def mark(self):
        self.marked += 1

    def seconds(self):
        return self._moments[: self.marked]


def batch(documents, length, real):
    mask = torch.zeros(documents, length, dtype=torch.int64)
    mask[:, :real] = 1
    return {"input_ids": torch.ones(documents, length, dtype=torch.int64), "attention_mask": mask}


def booked(steps, moments=None):
    """Return a book of steps, each (epoch, batches, losses)."""
    moments = moments or [0.5 * i for i in range(2 * len(steps))]
    book = StepBook()
    book.start(PlantedClock(moments), torch.device("cpu"), len(steps) + 1)
    for epoch, batches, losses in steps:
        book.begin(epoch)
        book.fetched(batches)
        for loss in losses:
            book.loss(torch.tensor(loss))
        book.end()
    return book


def test_a_row_a_step():
    book = booked(
        [(0.0, [batch(4, 16, 10)], [0.7]), (0.5, [batch(2, 16, 16)], [0.6])], [0, 1, 3, 7]
    )
    table = book.table(FLOPS)
    assert list(table["step"]) == [1, 2]
    assert list(table["step_s"]) == [1, 4]
    assert list(table["began_s"]) == [0, 3]
    assert list(table["samples"]) == [4, 2]
    assert list(table["real_tokens"]) == [40, 32]
    assert list(table["padded_tokens"]) == [64, 32]
    assert list(table["loss"]) == pytest.approx([0.7, 0.6])
    assert list(table["flops"]) == [4 * (5 + 1600 + 256), 2 * (5 + 1600 + 256)]


def test_accumulated_batches_are_one_step():
    (row,) = (
        booked([(0.0, [batch(4, 16, 16), batch(4, 8, 8)], [0.2, 0.3])])
        .table(FLOPS)
        .to_dict("records")
    )
    assert (row["samples"], row["padded_tokens"], row["length"]) == (8, 96, 16)
    assert row["loss"] == pytest.approx(0.5)
    assert row["flops"] == 4 * document_flops(FLOPS, 16) + 4 * document_flops(FLOPS, 8)


def test_a_step_that_did_not_end_is_left_out():
    book = booked([(0.0, [batch(1, 4, 4)], [0.5])])
    book.begin(0.5)
    assert book.finished == 1
    assert len(book.table(None)) == 1


def test_without_flops_there_is_no_such_column():
    assert "flops" not in booked([(0.0, [batch(1, 4, 4)], [0.5])]).table(None)


def test_losses_by_epoch():
    one = [batch(1, 4, 4)]
    book = booked([(0.0, one, [0.8]), (0.5, one, [0.6]), (1.0, one, [0.4])])
    assert book.epochs() == [0, 1]
    assert book.epoch_loss(0) == pytest.approx(0.7)
    assert book.epoch_loss(1) == pytest.approx(0.4)
    assert book.epoch_loss(2) is None


def test_waiting_for_data_is_inside_the_step(monkeypatch):
    moments = iter([10.0, 12.5])
    monkeypatch.setattr("bench.worker.steps.time.perf_counter", lambda: next(moments))
    table = booked([(0.0, [batch(1, 4, 4)], [0.5])]).table(None)
    assert list(table["data_wait_s"]) == [2.5]


def planted_table(step_s, samples=None):
    n = len(step_s)
    samples = samples or [8] * n
    return pd.DataFrame(
        {
            "step": range(1, n + 1),
            "step_s": step_s,
            "data_wait_s": [0.01] * n,
            "samples": samples,
            "length": [16] * n,
            "real_tokens": [10 * s for s in samples],
            "padded_tokens": [16 * s for s in samples],
            "flops": [1e9 * s for s in samples],
        }
    )


def test_the_first_two_steps_are_a_phase_of_their_own():
    summary = summarise(planted_table([9.0, 9.0, 1.0, 2.0, 3.0]), 1e10)
    assert (summary.count, summary.median_s, summary.q1_s, summary.q3_s) == (3, 2.0, 1.5, 2.5)


def test_rates_are_what_was_seen_divided_by_the_time_it_took():
    table = planted_table([9.0, 9.0, 1.0, 2.0, 1.0], [8, 8, 8, 8, 4])
    summary = summarise(table, 1e10)
    assert summary.samples_per_s == 20 / 4
    assert summary.real_tokens_per_s == 200 / 4
    assert summary.padded_tokens_per_s == 320 / 4
    assert summary.flops_per_s == 20e9 / 4
    assert summary.mfu == pytest.approx(0.5)
    assert summary.median_s == 1.5  # the smaller last batch is no full step


def test_no_peak_no_mfu():
    assert summarise(planted_table([1.0] * 4), None).mfu is None


def test_two_steps_have_no_summary():
    assert summarise(planted_table([1.0, 1.0]), 1e10) is None


def test_a_wide_spread_is_a_warning():
    def warning(table):
        return spread_warning(table, summarise(table, 1e10))

    assert warning(planted_table([1.0] * 9)) is None
    wide = planted_table([1, 1, 1.0, 1.0, 1.5, 2.0, 2.0])
    assert "interquartile range" in warning(wide)
    assert warning(planted_table([1.0])) is None
    assert warning(wide.assign(length=range(7))) is None  # they are meant to differ


def test_the_last_loss():
    book = booked([(0.0, [batch(1, 4, 4)], [0.5]), (0.5, [batch(1, 4, 4)], [0.25])])
    assert book.last_loss() == 0.25


def test_steps_come_back_from_parquet(tmp_path):
    table = planted_table([1.0, 2.0, 3.0])
    write_steps(table, str(tmp_path / "steps" / "a.parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "steps" / "a.parquet"), table)
