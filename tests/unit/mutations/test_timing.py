"""The shares of the time gate, on times whose noise is planted."""

import numpy as np

from ftbench.gating.compare_runs import FALSE_ALARMS
from tests.mutations.timing import judged_times


def times(noise, *, drift=0.0, second=1.0, runs=80):
    """Return runs that get slower by `drift` over all, every second of them by a factor."""
    draw = np.random.default_rng(1)
    trend = 1 + drift * np.linspace(0, 1, runs)
    return trend * np.exp(draw.normal(0, noise, runs)) * np.where(np.arange(runs) % 2, second, 1.0)


def test_a_slowdown_far_above_the_noise_is_always_found():
    found = judged_times({"step": times(0.01, drift=0.5)}, draws=200)
    assert found.found == 1.0
    assert found.alarms <= FALSE_ALARMS + 0.03
    assert found.holds or found.alarms > FALSE_ALARMS
    assert 0.009 < judged_times({"step": times(0.01, runs=1000)}, draws=1).spread["step"] < 0.011


def test_a_slowdown_below_the_noise_is_seldom_found():
    found = judged_times({"step": times(0.3)}, draws=200)
    assert found.found < 0.5
    assert not found.holds
    assert "MISSED" in str(found)


def test_an_order_that_matters_is_told():
    found = judged_times({"step": times(0.01, second=1.2)}, draws=50)
    assert 1.18 < found.order["step"] < 1.22


def test_figures_are_judged_together():
    noisy, steady = times(0.3), times(0.01)
    both = judged_times({"total": noisy, "step": steady}, draws=200)
    assert both.found == 1.0
    assert both.alarms <= FALSE_ALARMS + 0.03
