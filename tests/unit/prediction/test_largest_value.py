"""The largest value of an argument: traces of planted sizes, on a planted card."""

import types

import pytest

from ftbench.prediction.largest_value import largest_values
from ftbench.prediction.simulate.simulation import Simulated

FIXED, EACH = 100, 7


def search(room, *, margin=0, traced=None):
    """Search on a card with this room, which it may exceed by a margin in some scenarios."""
    card = types.SimpleNamespace(name="planted", capacities=(room, room, room + margin))

    def trace(value):
        if traced is not None:
            traced.append(value)
        return types.SimpleNamespace(peak_bytes=FIXED + EACH * value)

    def simulate(traced, card):
        if traced.peak_bytes <= room:
            return Simulated((), "never")
        return Simulated((), "sometimes" if traced.peak_bytes <= room + margin else "always")

    (found,) = largest_values("cell", "batch", [card], trace, simulate)
    assert (found.cell_id, found.gpu, found.argument) == ("cell", "planted", "batch")
    return found.certain, found.possible


@pytest.mark.parametrize("value", [1, 2, 3, 4, 5, 100, 4321])
def test_the_largest_value_that_fits(value):
    assert search(FIXED + EACH * value) == (value, value)


def test_what_may_fit_is_told_apart():
    assert search(FIXED + EACH * 50, margin=EACH * 3) == (50, 53)


def test_nothing_fits():
    assert search(FIXED) == (0, 0)


def test_no_value_is_traced_twice():
    traced = []
    search(FIXED + EACH * 1000, traced=traced)
    assert len(traced) == len(set(traced)) <= 12
