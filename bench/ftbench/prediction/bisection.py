"""The largest number for which a condition holds, with few calls: each may be a simulation, or a trace."""

from __future__ import annotations

from collections.abc import Callable


def last(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` for which a condition holds, or 0.

    The condition must hold for all smaller numbers as well.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def last_from_above(holds: Callable[[int], bool], most: int) -> int:
    """Return the same as `last`, with fewer calls if the answer is near `most`."""
    fails, step = most + 1, max(1, most // 64)
    low = most
    while low > 0 and not holds(low):
        fails, low, step = low, max(0, low - step), 2 * step
    return low + last(lambda more: holds(low + more), fails - low - 1)


def last_from_near(holds: Callable[[int], bool], near: int, most: int) -> int:
    """Return the same as `last`, with few calls if the answer is near a guess."""
    top = min(max(near, 1), most)
    while top < most and holds(top):
        top = min(most, top + max(1, top // 16))
    return last_from_above(holds, top)
