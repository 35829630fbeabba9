import numpy as np
import pandas as pd
import pytest

from ftbench.analysis.fits.exponents import Noise, exponents, noise
from ftbench.analysis.fits.laws import Interval
from ftbench.analysis.fits.scaling import fit_scaling
from tests.unit.analysis.made_up import AXES, table

CELL = AXES[:2]
SEEDS = range(200)


REPEATED = table(noise=0, repeats=3)[CELL]


def power_law(seed, share=0.03):
    """Return runs whose cost is length^1.2 * batch^0.8, with noise, three to a cell."""
    draw = np.random.default_rng(seed).normal(0, share, len(REPEATED))
    cost = REPEATED["max_length"] ** 1.2 * REPEATED["per_device_train_batch_size"] ** 0.8
    return REPEATED.assign(peak_rss_bytes=cost * np.exp(draw))


def along(found, axis):
    return [e for e in found if e.axis == axis]


def test_exponents_of_a_power_law():
    found = exponents(power_law(0, share=0), "peak_rss_bytes", CELL, Noise(0.0, 5, "repeats"))
    assert len(along(found, "max_length")) == 9  # three steps at each of three batches
    for exponent in found:
        truth = 1.2 if exponent.axis == "max_length" else 0.8
        assert exponent.exponent == Interval(*[pytest.approx(truth)] * 3)
    first = found[0]
    assert (first.start, first.end, first.source) == (64, 128, "repeats")
    assert first.fixed == {"per_device_train_batch_size": 4}


def test_intervals_hold_the_exponent_as_often_as_they_say():
    covered, widths = [], []
    for seed in SEEDS:
        runs = power_law(seed)
        known = noise(runs, "peak_rss_bytes", CELL, None)
        found = along(exponents(runs, "peak_rss_bytes", CELL, known), "max_length")
        covered += [e.exponent.low <= 1.2 <= e.exponent.high for e in found]
        widths += [e.exponent.high - e.exponent.low for e in found]
    assert 0.92 <= np.mean(covered) <= 0.98
    # 2 * 1.96 * 0.03 * sqrt(2 / 3) / log(2)
    assert np.median(widths) == pytest.approx(0.139, rel=0.1)


def test_noise_is_the_spread_of_a_cells_runs():
    known = noise(power_law(0), "peak_rss_bytes", CELL, None)
    assert known.deviation == pytest.approx(0.03, rel=0.35)
    assert (known.freedom, known.source) == (24, "repeats")


def test_without_repeats_it_is_the_residual_of_the_fit():
    (group,) = fit_scaling(table(0), AXES)
    assert {e.source for e in group.exponents} == {"residual"}
    assert {e.cost for e in group.exponents} == {"step_median_s", "total_s", "peak_rss_bytes"}


def test_without_either_there_is_none():
    (group,) = fit_scaling(table(0, lengths=(64, 128), batches=(8,)), AXES)
    assert group.exponents == ()


def test_a_step_time_is_no_surer_than_its_own_interval():
    runs = table(noise=0)
    runs["step_low_s"], runs["step_high_s"] = (
        runs["step_median_s"] * 0.9,
        runs["step_median_s"] * 1.1,
    )
    found = exponents(runs, "step_median_s", CELL, Noise(0.0, 1000, "test"))
    ends = found[0].exponent
    assert ends.high - ends.low == pytest.approx(2 * 0.1 * np.sqrt(2) / np.log(2), rel=0.01)


def test_runs_without_the_cost_are_passed_over():
    runs = table(noise=0)
    runs.loc[runs["max_length"] == 128, "peak_rss_bytes"] = np.nan
    found = exponents(runs, "peak_rss_bytes", CELL, Noise(0.0, 5, "repeats"))
    assert {(e.start, e.end) for e in along(found, "max_length")} == {(64, 256), (256, 512)}


def test_an_empty_table_has_none():
    assert exponents(pd.DataFrame(table(0)[:0]), "total_s", AXES, Noise(0.1, 5, "test")) == ()


def test_a_doubling_between_cells_that_are_no_neighbours_is_told_too():
    runs = table(noise=0, lengths=(256, 384, 512), batches=(4,))[[*CELL, "step_median_s"]]
    found = along(exponents(runs, "step_median_s", CELL, Noise(0.0, 5, "repeats")), "max_length")
    assert [(one.start, one.end) for one in found] == [(256, 384), (256, 512), (384, 512)]


def by_hand(costs, **columns):
    """Runs at lengths 100 and 200 of one batch, two of each."""
    return pd.DataFrame(
        {
            "max_length": [100.0, 100, 200, 200],
            "per_device_train_batch_size": 4.0,
            "step_median_s": costs,
        }
        | columns
    )


def test_an_exponent_and_its_interval_by_hand():
    """Means of 1 and 4 s over a doubling: 2. Each mean is known to 0.1 / sqrt(2); t of 4 is 2.776."""
    table_ = by_hand([0.9, 1.1, 3.0, 5.0])
    (found,) = exponents(table_, "step_median_s", CELL, Noise(0.1, 4, "test"))
    assert found.exponent.value == pytest.approx(2)
    half = 2.776 * np.sqrt(2 * 0.1**2 / 2) / np.log(2)
    assert found.exponent.high - 2 == pytest.approx(half, rel=1e-3)
    assert 2 - found.exponent.low == pytest.approx(half, rel=1e-3)
    assert (found.cost, found.axis, found.fixed) == (
        "step_median_s",
        "max_length",
        {"per_device_train_batch_size": 4},
    )


def test_the_wider_of_a_median_s_own_interval_and_the_noise_counts():
    """Of 1.96 standard deviations to either side, 0.392 s around 1 s are a deviation of 0.2."""
    own = {"step_low_s": [0.8, 0.8, 2.0, np.nan], "step_high_s": [1.584, 1.584, 2.0, 2.0]}
    table_ = by_hand([1.0, 1.0, 2.0, 2.0], **own)
    (found,) = exponents(table_, "step_median_s", CELL, Noise(0.1, 4, "test"))
    variance = 0.2**2 / 2 + 0.1**2 / 2
    half = found.exponent.high - found.exponent.value
    assert half == pytest.approx(2.776 * np.sqrt(variance) / np.log(2), rel=1e-3)
    alone = table_.assign(total_s=table_["step_median_s"])
    (other,) = exponents(alone, "total_s", CELL, Noise(0.1, 4, "test"))
    half = other.exponent.high - other.exponent.value
    assert half == pytest.approx(2.776 * 0.1 / np.log(2), rel=1e-3)


def test_noise_by_hand():
    """Shares of -0.1 and 0.1, and of -0.2, 0 and 0.2 about the cells' means: 0.1 over 3 runs to spare."""
    table_ = pd.DataFrame({"max_length": [8.0, 8, 16, 16, 16], "cost": [0.9, 1.1, 8.0, 10.0, 12.0]})
    known = noise(table_, "cost", ["max_length"], None)
    assert known.deviation == pytest.approx(np.sqrt(0.1 / 3))
    assert known.freedom == 3
    residual = Noise(0.5, 9, "residual")
    assert noise(table_[:4], "cost", ["max_length"], residual) is residual
    assert noise(table_[:0], "cost", ["max_length"], residual) is residual


def test_values_that_are_whole_are_said_as_such():
    table_ = pd.DataFrame({"x": [0.5, 1.0, 2.5], "cost": [1.0, 2.0, 5.0]})
    found = exponents(table_, "cost", ["x"], Noise(0.0, 5, "repeats"))
    assert [(one.start, one.end) for one in found] == [(0.5, 1), (1, 2.5)]
    assert [type(one.end) for one in found] == [int, float]
    assert [one.exponent.value for one in found] == pytest.approx([1, 1])
