"""Slide: which of several neighbours of one size is the one too many, by how long each lives.

An alignment by sizes cannot tell: it leaves out any of them. The gap is moved to where the rows that belong
together are freed after as many allocations as each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ftbench.snapshot.expected import Integers

_NEVER = 1 << 40  # allocations that a block outlives that is not freed
_MOST_APART = 1000  # a longer difference of lives says no more than this one
_MOST_STEPS = 1024


class Side(NamedTuple):
    """The sizes of one side, and after how many allocations each row is freed."""

    nbytes: list[int]
    lives: list[int]


def side_of(nbytes: Integers, ended: Integers) -> Side:
    """Return a side from its columns, as in `Expected`."""
    lives = np.where(ended < 0, _NEVER, ended - np.arange(len(ended)))
    return Side(nbytes.tolist(), lives.tolist())


def slid(pairs: Integers, ours: Side, theirs: Side) -> Integers:
    """Return the pairs with each gap of one side where the lives of the rows around it fit best."""
    if len(pairs) < 2:
        return pairs
    gaps = np.diff(pairs, axis=0) - 1
    rows: list[list[int]] = pairs.tolist()
    for axis in (0, 1):
        for before in np.flatnonzero((gaps[:, axis] > 0) & (gaps[:, 1 - axis] == 0)).tolist():
            _Gap(rows, before, axis, (ours, theirs)).slide()
    return np.array(rows, dtype=np.int64)


class _Gap:
    """The rows of one side between two pairs that are neighbours on the other side."""

    def __init__(
        self, rows: list[list[int]], before: int, axis: int, sides: tuple[Side, Side]
    ) -> None:
        self._rows, self._before, self._axis, self._sides = rows, before, axis, sides
        self._length = rows[before + 1][axis] - rows[before][axis] - 1

    def slide(self) -> None:
        """Move the gap to the best place."""
        up, by_up = self._best(self._before, -1)
        down, by_down = self._best(self._before + 1, 1)
        if min(by_up, by_down) >= 0:
            return
        first, steps, way = (
            (self._before, up, -1) if by_up <= by_down else (self._before + 1, down, 1)
        )
        for step in range(steps):
            self._rows[first + way * step][self._axis] -= way * self._length

    def _best(self, first: int, way: int) -> tuple[int, int]:
        """Return how many pairs to move across the gap, up or down from the first, and how much worse that fits."""
        best, at_best, total = 0, 0, 0
        for step in range(_MOST_STEPS):
            place = first + way * step
            if not 0 <= place < len(self._rows):
                break
            pair = self._rows[place]
            if step and not _neighbours(pair, self._rows[place - way]):
                break
            moved = list(pair)
            moved[self._axis] -= way * self._length
            sizes = self._sides[self._axis].nbytes
            if sizes[moved[self._axis]] != sizes[pair[self._axis]]:
                break
            total += self._apart(moved) - self._apart(pair)
            if total < best:
                best, at_best = total, step + 1
        return at_best, best

    def _apart(self, pair: list[int]) -> int:
        ours, theirs = self._sides
        return min(abs(ours.lives[pair[0]] - theirs.lives[pair[1]]), _MOST_APART)


def _neighbours(one: list[int], other: list[int]) -> bool:
    return abs(one[0] - other[0]) == 1 == abs(one[1] - other[1])
