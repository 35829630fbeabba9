"""Steps, with time, tokens and losses planted."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftbench.records.readings import FIRST_STEPS
from ftbench.worker.measure.statistics import UNSTEADY_WARN
from ftbench.worker.measure.steps import (
    DRIFT_WARN,
    SPREAD_WARN,
    StepBook,
    example_flops,
    step_warnings,
    summarise,
    write_steps,
)

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


def test_examples_in_one_row_are_counted_by_their_positions():
    """Two batches of a step, of 3 and 2 examples: an example is as long as its positions go."""

    def flattened(*lengths):
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        return {"input_ids": torch.ones_like(positions), "position_ids": positions}

    table = booked([(0, [flattened(3, 5, 4), flattened(7, 1)], [1.0])]).table(FLOPS)
    (row,) = table.to_dict("records")
    assert (row["samples"], row["real_tokens"], row["padded_tokens"]) == (5, 20, 20)
    assert row["length"] == 12
    assert row["flops"] == sum(example_flops(FLOPS, length) for length in (3, 5, 4, 7, 1))


def test_accumulated_batches_are_one_step():
    (row,) = (
        booked([(0.0, [batch(4, 16, 16), batch(4, 8, 8)], [0.2, 0.3])])
        .table(FLOPS)
        .to_dict("records")
    )
    assert (row["samples"], row["padded_tokens"], row["length"]) == (8, 96, 16)
    assert row["loss"] == pytest.approx(0.5)
    assert row["flops"] == 4 * example_flops(FLOPS, 16) + 4 * example_flops(FLOPS, 8)


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
    monkeypatch.setattr("ftbench.worker.measure.steps.time.perf_counter", lambda: next(moments))
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


def test_the_first_two_steps_are_warm_up_where_only_the_first_is_slow():
    found = summarise(planted_table([9.0, *[1.0, 1.01] * 20]), None)
    assert found.warmup_steps == 2
    assert found.count == 39
    assert found.samples == 39 * 8


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


def noise(steps, seed=0):
    return np.exp(0.03 * np.random.default_rng(seed).normal(size=steps))


def run_warnings(table):
    return step_warnings(table, summarise(table, 1e10))


def names(table):
    return [run_warning.name for run_warning in run_warnings(table)]


def test_known_median_quartiles_and_interval():
    summary = summarise(planted_table([9.0, 9.0, *range(1, 13)]), None)
    assert (summary.min_s, summary.q1_s, summary.median_s, summary.q3_s) == (1.0, 3.75, 6.5, 9.25)
    assert summary.median_low_s <= 3  # the third and the tenth of 12: see test_statistics
    assert summary.median_high_s >= 10


def test_warmup_that_the_data_shows_is_left_out():
    step_s = np.where(np.arange(200) < 20, 3.0, 1.0) * noise(200)
    table = planted_table(step_s)
    summary = summarise(table, 1e10)
    assert 20 <= summary.warmup_steps <= 23
    later = table[table["step"] > summary.warmup_steps]
    assert summary.count == len(later) == 200 - summary.warmup_steps
    assert summary.samples == later["samples"].sum()
    assert summary.seconds == later["step_s"].sum()
    assert summary.median_s == later["step_s"].median()
    assert summary.median_low_s < 1.0 < summary.median_high_s
    assert names(table) == []


def test_a_smaller_batch_in_warmup_is_left_out_with_it():
    table = planted_table(
        [5.0] * 4 + [2.0] + [5.0] * 3 + [1.0] * 24, [8] * 4 + [3] + [8] * 3 + [8] * 24
    )
    summary = summarise(table, None)
    assert (summary.warmup_steps, summary.count, summary.samples) == (8, 24, 192)


def test_noise_leaves_only_the_first_steps_out():
    found = [summarise(planted_table(noise(60, seed)), None).warmup_steps for seed in range(50)]
    assert np.mean([steps == FIRST_STEPS for steps in found]) >= 0.96


def test_too_short_a_cell_leaves_only_the_first_steps_out():
    assert summarise(planted_table([5.0] * 4 + [1.0] * 5), None).warmup_steps == FIRST_STEPS


@given(
    st.lists(st.tuples(st.floats(1e-3, 10), st.integers(1, 8)), min_size=3, max_size=80),
)
def test_rates_are_the_samples_over_the_seconds_exactly(steps):
    table = planted_table([step_s for step_s, _ in steps], [samples for _, samples in steps])
    summary = summarise(table, 1e10)
    later = table[table["step"] > summary.warmup_steps]
    assert summary.warmup_steps >= FIRST_STEPS
    assert summary.samples_per_s == summary.samples / summary.seconds
    assert (summary.samples, summary.seconds) == (later["samples"].sum(), later["step_s"].sum())
    assert summary.real_tokens_per_s == later["real_tokens"].sum() / summary.seconds
    assert summary.median_low_s <= summary.median_s <= summary.median_high_s


def test_one_step_in_fifty_that_takes_four_times_as_long():
    step_s = noise(500)
    step_s[25::50] = 4.0
    table = planted_table(step_s)
    summary = summarise(table, None)
    assert summary.warmup_steps == FIRST_STEPS
    assert summary.median_s == pytest.approx(1.0, rel=0.01)
    assert summary.samples_per_s == 8 * 498 / step_s[2:].sum()  # the mean has them all
    assert 8 / summary.samples_per_s == pytest.approx(1.06, rel=0.01)
    assert table["step_s"].max() == 4.0
    assert names(table) == []


def mixed_lengths(steps, seed=0):
    """Return a table whose batches have two lengths, at random, and take 1 ms a padded token."""
    lengths = np.random.default_rng(seed).choice([16, 64], size=steps)
    table = planted_table(8e-3 * lengths * noise(steps, seed))
    return table.assign(length=lengths, padded_tokens=8 * lengths)


def test_warmup_of_batches_of_different_lengths_is_seen_in_the_time_of_a_token():
    table = mixed_lengths(200)
    assert summarise(table, None).warmup_steps == FIRST_STEPS
    slow = table.assign(step_s=table["step_s"] * np.where(np.arange(200) < 20, 1.5, 1.0))
    assert 20 <= summarise(slow, None).warmup_steps <= 23


def test_long_batches_first_are_no_warmup():
    table = planted_table([4.0] * 20 + [1.0] * 80)
    table = table.assign(length=[64] * 20 + [16] * 80, padded_tokens=[512] * 20 + [128] * 80)
    assert summarise(table, None).warmup_steps == FIRST_STEPS


def test_a_wide_spread_is_a_caution_over_its_threshold():
    at = planted_table([5.0, 5.0, 4.0, 4.5, 5.0, 5.5, 6.0])
    assert names(at) == []
    over = planted_table([5.0, 5.0, 4.0, 4.49, 5.0, 5.5, 6.0])
    (run_warning,) = run_warnings(over)
    assert (run_warning.name, run_warning.threshold) == ("spread", SPREAD_WARN)
    assert run_warning.value == pytest.approx(1.01 / 5)
    assert "20% of their median" in run_warning.message
    assert names(over.assign(length=range(7))) == []  # they are meant to differ


def test_no_summary_no_caution():
    assert run_warnings(planted_table([1.0])) == []


def drifting(change, steps=300):
    """Return times whose median moves by a share from the first third of 2 + `steps` to the last."""
    place = np.concatenate(([0, 0], np.arange(steps)))
    third = (steps // 3 - 1) / 2
    return 1 + change * (place - third) / (steps - 1 - 2 * third)


def test_a_drift_of_ten_per_cent_is_a_caution():
    (run_warning,) = run_warnings(planted_table(drifting(0.10)))
    assert (run_warning.name, run_warning.threshold) == ("drift", DRIFT_WARN)
    assert run_warning.value == pytest.approx(0.10)
    assert "10% slower" in run_warning.message
    (run_warning,) = run_warnings(planted_table(drifting(0.10) * noise(302)))
    assert run_warning.value == pytest.approx(0.10, abs=0.015)


def test_drift_is_a_caution_over_its_threshold():
    at = [20.0] * 22 + [20.5] * 20 + [21.0] * 20
    assert names(planted_table(at)) == []
    assert names(planted_table([20.0] * 22 + [20.5] * 20 + [21.01] * 20)) == ["drift"]


def test_a_start_that_is_faster_is_a_drift_and_stays_in_the_figures():
    table = planted_table(np.where(np.arange(202) < 80, 1.0, 1.12) * noise(202))
    assert names(table) == ["drift"]
    assert summarise(table, None).warmup_steps == FIRST_STEPS


def test_speeding_up_after_half_of_the_steps_is_a_drift():
    (run_warning,) = run_warnings(
        planted_table(np.where(np.arange(200) < 120, 1.12, 1.0) * noise(200))
    )
    assert run_warning.name == "drift"
    assert run_warning.value == pytest.approx(-0.107, abs=0.01)
    assert "faster" in run_warning.message


def test_drift_of_batches_of_different_lengths_is_that_of_a_token():
    table = mixed_lengths(302)
    assert names(table) == []
    assert names(table.assign(step_s=table["step_s"] * drifting(0.10))) == ["drift"]


def test_lengths_that_move_are_no_drift():
    # Grouped by length, the longest come first, and a token of a short batch takes longer.
    lengths = np.linspace(64, 16, 60).astype(int)
    table = planted_table(0.1 + 8e-3 * lengths).assign(length=lengths, padded_tokens=8 * lengths)
    pace = table["step_s"] / table["padded_tokens"]
    assert pace.iloc[-20:].median() > 1.2 * pace.iloc[:20].median()
    assert names(table) == []


def test_no_steady_state_is_a_caution():
    (run_warning, *others) = run_warnings(planted_table(np.linspace(2.0, 1.0, 100)))
    assert (run_warning.name, run_warning.threshold) == ("unsteady", UNSTEADY_WARN)
    assert run_warning.value == 1.0
    assert "after 50 steps" in run_warning.message
    assert [other.name for other in others] == ["drift"]


def test_the_last_loss():
    book = booked([(0.0, [batch(1, 4, 4)], [0.5]), (0.5, [batch(1, 4, 4)], [0.25])])
    assert book.last_loss() == 0.25


def test_steps_come_back_from_parquet(tmp_path):
    table = planted_table([1.0, 2.0, 3.0])
    write_steps(table, str(tmp_path / "steps" / "a.parquet"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "steps" / "a.parquet"), table)
