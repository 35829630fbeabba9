"""Statistics, against series whose answer was planted."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.worker.measure.statistics import (
    FEWEST_FOR_DRIFT,
    FEWEST_FOR_WARMUP,
    UNSTEADY_WARN,
    block_length,
    drift,
    median_interval,
    warmup,
)

NOISE = 0.03  # the interquartile range of quiet step times is about 3 % (MEASURING.md)
SEEDS = range(200)
times = st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=120)


def noise(samples, seed, *, sd=NOISE):
    """Return times about 1 with independent lognormal noise."""
    return np.exp(sd * np.random.default_rng(seed).normal(size=samples))


def remembering(samples, seed, *, sd=NOISE, memory=0.7):
    """Return times about 1 with lognormal AR(1) noise."""
    shocks = np.random.default_rng(seed).normal(size=samples + 100) * math.sqrt(1 - memory**2)
    level, levels = 0.0, []
    for shock in shocks:
        level = memory * level + shock
        levels.append(level)
    return np.exp(sd * np.array(levels[100:]))


def slow_start(samples, slow, factor):
    return np.where(np.arange(samples) < slow, factor, 1.0)


# Warm-up


@pytest.mark.parametrize("samples", [12, 24, 60, 200, 1000])
def test_noise_alone_is_no_warmup(samples):
    found = [warmup(noise(samples, seed)) for seed in SEEDS]
    assert np.mean([w.samples == 0 for w in found]) >= 0.97
    assert np.mean([w.verdict == "unsteady" for w in found]) <= 0.02


def test_noise_that_is_remembered_is_seldom_one():
    found = [warmup(remembering(200, seed)) for seed in SEEDS]
    assert np.mean([w.samples == 0 for w in found]) >= 0.95


@pytest.mark.parametrize("factor", [1.1, 1.5, 4.0])
def test_twenty_slow_steps_are_found(factor):
    found = [warmup(slow_start(200, 20, factor) * noise(200, seed)) for seed in SEEDS]
    cuts = [w.samples for w in found]
    assert np.median(cuts) == 20
    assert np.mean([19 <= cut <= 24 for cut in cuts]) >= 0.93
    assert {w.verdict for w in found} == {"steady"}


@pytest.mark.parametrize(("samples", "slow"), [(16, 4), (30, 6)])
def test_a_slow_start_of_a_short_series_is_found(samples, slow):
    series = slow_start(samples, slow, 1.5)
    cuts = [warmup(series * noise(samples, seed)).samples for seed in SEEDS]
    assert np.median(cuts) == slow
    assert np.mean([slow - 1 <= cut <= slow + 2 for cut in cuts]) >= 0.8


def test_a_transient_that_decays_ends_where_noise_covers_it():
    decay = 1 + 2 * np.exp(-np.arange(200) / 6)  # falls below the noise, 3 %, at step 25
    cuts = [warmup(decay * noise(200, seed)).samples for seed in SEEDS]
    assert 22 <= np.median(cuts) <= 28
    assert np.mean([19 <= cut <= 35 for cut in cuts]) >= 0.95
    assert warmup(decay).samples == pytest.approx(32, abs=2)  # without noise, at 1 %


@pytest.mark.parametrize("slow", [2, 5, 60])
def test_a_planted_step_change_is_found_exactly_without_noise(slow):
    assert warmup(slow_start(200, slow, 1.5)).samples == slow


def test_a_late_outlier_moves_nothing():
    series = slow_start(200, 20, 1.5) * noise(200, 3)
    before = warmup(series)
    for place in (30, 90, 150, 199):
        spiked = series.copy()
        spiked[place] *= 100
        assert abs(warmup(spiked).samples - before.samples) <= 2


def test_a_series_that_gets_faster_all_the_way_has_no_steady_state():
    found = [warmup(np.linspace(1.5, 1.0, 200) * noise(200, seed)) for seed in SEEDS]
    assert np.mean([w.verdict == "unsteady" for w in found]) >= 0.95


def test_warmup_over_the_share_of_the_limit_is_unsteady():
    at, over = warmup(slow_start(200, 90, 1.5)), warmup(slow_start(200, 91, 1.5))
    assert (at.samples, at.limit, at.verdict) == (90, 100, "steady")
    assert at.samples == UNSTEADY_WARN * at.limit
    assert over.verdict == "unsteady"


def test_a_start_that_is_faster_is_left_for_drift():
    series = slow_start(200, 60, 0.8) * noise(200, 1)
    assert warmup(series).samples == 0
    assert drift(series).change == pytest.approx(0.25, abs=0.02)


def test_less_than_a_per_cent_is_of_no_interest():
    assert warmup(slow_start(200, 20, 1.009)).samples == 0
    assert warmup(slow_start(200, 20, 1.02)).samples == 20


def test_too_short_says_so():
    short = [5.0] * 3 + [1.0] * (FEWEST_FOR_WARMUP - 4)
    assert (warmup(short).samples, warmup(short).verdict) == (0, "too short")
    assert (warmup([*short, 1.0]).samples, warmup([*short, 1.0]).verdict) == (3, "steady")
    assert warmup([]).verdict == "too short"


@given(times)
def test_warmup_is_at_most_half_and_the_same_each_time(series):
    found = warmup(series)
    assert 0 <= found.samples <= len(series) / 2
    assert found == warmup(series)


@given(times, st.integers(-20, 20))
def test_warmup_does_not_depend_on_the_unit(series, power):
    assert warmup(np.array(series) * 2.0**power) == warmup(series)


# The interval of the median


@pytest.mark.parametrize("samples", [10, 30, 200])
def test_the_interval_holds_the_true_median_95_times_in_100(samples):
    held = [low <= 1 <= high for low, high in intervals(noise, samples)]
    assert 0.90 <= np.mean(held) <= 0.99


def intervals(series, samples):
    return [median_interval(series(samples, seed), seed=seed) for seed in SEEDS]


def plain_interval(series, seed):
    drawn = np.random.default_rng(seed).integers(len(series), size=(500, len(series)))
    return np.quantile(np.median(series[drawn], axis=1), [0.025, 0.975])


def test_blocks_hold_it_more_often_than_single_draws_where_noise_is_remembered():
    plain = [plain_interval(remembering(200, seed), seed) for seed in SEEDS]
    held = np.mean([low <= 1 <= high for low, high in intervals(remembering, 200)])
    held_by_plain = np.mean([low <= 1 <= high for low, high in plain])
    assert held >= 0.85
    assert held >= held_by_plain + 0.10


def test_few_independent_samples_have_the_exact_binomial_interval():
    # Of 12: P(at most 2 below the median) = 79/4096 = 1.9 %, so the third and the tenth.
    low, high = median_interval([*range(12)])
    assert low <= 2
    assert high >= 9
    assert median_interval([3.0]) == (3.0, 3.0)
    assert median_interval([1.0, 2.0]) == (1.0, 2.0)  # too few: the whole range


def test_the_interval_of_no_times_is_an_error():
    with pytest.raises(ValueError, match="give at least one"):
        median_interval([])


def test_a_higher_level_is_wider_and_more_samples_narrower():
    few, many = noise(100, 5), noise(2000, 5)
    width = {
        "few": np.subtract(*reversed(median_interval(few))),
        "sure": np.subtract(*reversed(median_interval(few, level=0.99))),
        "many": np.subtract(*reversed(median_interval(many))),
    }
    assert width["sure"] > width["few"] > 2 * width["many"]


@settings(deadline=None, max_examples=40)
@given(times, st.integers(0, 3))
def test_the_interval_holds_the_samples_own_median(series, seed):
    low, high = median_interval(series, seed=seed)
    assert min(series) <= low <= np.median(series) <= high <= max(series)
    assert (low, high) == median_interval(series, seed=seed)


@pytest.mark.parametrize(("samples", "length"), [(1, 1), (8, 2), (9, 3), (1000, 10), (5000, 18)])
def test_blocks_are_the_cube_root_long(samples, length):
    assert block_length(samples) == length


def test_five_thousand_steps_take_no_time():
    series = noise(5000, 0)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        median_interval(series)
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.2  # 0.02 s on a quiet core; the bound is for a busy one


# Drift


def test_a_planted_drift_is_found():
    # Ten per cent from the middle of the first third to that of the last.
    series = 1 + 0.10 * (np.arange(300) - 49.5) / 200
    found = [drift(series * noise(300, seed)) for seed in SEEDS]
    assert np.mean([d.change for d in found]) == pytest.approx(0.10, abs=0.002)
    assert all(d.stands_out for d in found)
    assert drift(series).change == pytest.approx(0.10)


@pytest.mark.parametrize("samples", [FEWEST_FOR_DRIFT, 24, 200])
def test_noise_alone_does_not_drift(samples):
    found = [drift(noise(samples, seed)) for seed in SEEDS]
    assert np.mean([d.stands_out for d in found]) <= 0.03


def test_a_drift_backwards_is_negative():
    found = drift(slow_start(100, 50, 2.0))
    assert (found.change, found.stands_out) == (-0.5, True)


def test_too_few_have_no_drift():
    assert drift([1.0] * (FEWEST_FOR_DRIFT - 1)) is None
    assert drift([1.0] * FEWEST_FOR_DRIFT).change == 0.0
