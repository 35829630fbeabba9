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
    found = exponents(power_law(0, share=0), "peak_rss_bytes", CELL, Noise(0.0, 5, "test"))
    assert len(along(found, "max_length")) == 9  # three steps at each of three batches
    for exponent in found:
        truth = 1.2 if exponent.axis == "max_length" else 0.8
        assert exponent.exponent == Interval(*[pytest.approx(truth)] * 3)
    first = found[0]
    assert (first.start, first.end, first.source) == (64, 128, "test")
    assert first.held == {"per_device_train_batch_size": 4}


def test_intervals_hold_the_exponent_as_often_as_they_say():
    held, widths = [], []
    for seed in SEEDS:
        runs = power_law(seed)
        known = noise(runs, "peak_rss_bytes", CELL, None)
        found = along(exponents(runs, "peak_rss_bytes", CELL, known), "max_length")
        held += [e.exponent.low <= 1.2 <= e.exponent.high for e in found]
        widths += [e.exponent.high - e.exponent.low for e in found]
    assert 0.92 <= np.mean(held) <= 0.98
    # 2 * 1.96 * 0.03 * sqrt(2 / 3) / log(2)
    assert np.median(widths) == pytest.approx(0.139, rel=0.1)


def test_noise_is_the_spread_of_a_cells_runs():
    known = noise(power_law(0), "peak_rss_bytes", CELL, None)
    assert known.deviation == pytest.approx(0.03, rel=0.35)
    assert (known.freedom, known.source) == (24, "runs of the same cell")


def test_without_repeats_it_is_the_residual_of_the_fit():
    (group,) = fit_scaling(table(0), AXES)
    assert {e.source for e in group.exponents} == {"residual of the fit"}
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
    found = exponents(runs, "peak_rss_bytes", CELL, Noise(0.0, 5, "test"))
    assert {(e.start, e.end) for e in along(found, "max_length")} == {(64, 256), (256, 512)}


def test_an_empty_table_has_none():
    assert exponents(pd.DataFrame(table(0)[:0]), "total_s", AXES, Noise(0.1, 5, "test")) == ()


def test_a_doubling_between_cells_that_are_no_neighbours_is_told_too():
    runs = table(noise=0, lengths=(256, 384, 512), batches=(4,))[[*CELL, "step_median_s"]]
    found = along(exponents(runs, "step_median_s", CELL, Noise(0.0, 5, "test")), "max_length")
    assert [(one.start, one.end) for one in found] == [(256, 384), (256, 512), (384, 512)]
