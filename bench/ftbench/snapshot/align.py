"""Alignment: which allocations of two sequences are the same, by their sizes, in order.

Two sequences that agree are walked side by side. At a difference, the shortest edit (Myers, "An O(ND)
difference algorithm and its variations", 1986) is searched until it leads to enough equal allocations in a row,
and the walk goes on from there: the cost is that of the differences, not that of the sequences. If no short
edit does, the nearest place at which both go on alike is taken.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from ftbench.snapshot.expected import Integers, windows

COMMIT = 32  # equal allocations in a row that end a difference
_MOST_EDITS = 128
# After so many edits it is enough that so many times as many rows were equal on the way.
_ENOUGH = {edits: 3 if edits < 64 else 1 for edits in range(24, _MOST_EDITS, 8)}
_CHUNK = 4096
Pairs = list[tuple[int, int]]


class Alignment:
    """Aligns two sequences of sizes, ours and theirs."""

    def __init__(self, ours: Integers, theirs: Integers) -> None:
        self._ours, self._theirs = ours, theirs
        self._our_list, self._their_list = ours.tolist(), theirs.tolist()
        self._places: dict[int, dict[int, list[int]]] = {}  # of windows of ours, by width
        self._hashes: dict[int, list[int]] = {}  # of windows of theirs

    def pairs(self, start: tuple[int, int] = (0, 0)) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Return the rows that are the same, (ours, theirs), in order, and where the comparison ends.

        The rows are an array of two columns. It ends at the end of ours or of theirs, or earlier if they have
        nothing in common from there on.
        """
        found: list[NDArray[np.int64]] = []
        i, j = start
        while True:
            length = self.equal_from(i, j)
            if length:
                run = np.arange(length)
                found.append(np.stack([i + run, j + run], axis=1))
            i, j = i + length, j + length
            if i == len(self._ours) or j == len(self._theirs):
                break
            step = self._edit(i, j) or self._jump(i, j) or self._edit(i, j, to_end=True)
            if step is None:
                break
            between, (i, j) = step
            if between:
                found.append(np.array(between))
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *found]), (i, j)

    def beginning(self) -> tuple[int, int]:
        """Return where to begin if theirs begins in the middle of ours: where the longest run in common does.

        Of equal runs, the one from which as much is left of ours as of theirs. (0, 0) if nothing is in common.
        """
        for width in (COMMIT, COMMIT // 4):
            places, hashes = self._windows(width)
            for j, one in enumerate(hashes):
                if one in places:
                    left = len(self._theirs) - j
                    return max(
                        ((i, j) for i in places[one]),
                        key=lambda at: (
                            self.equal_from(*at),
                            -abs(len(self._ours) - at[0] - left),
                        ),
                    )
        return 0, 0

    def equal_from(self, i: int, j: int) -> int:
        """Return how many rows are equal from here on."""
        length, most = 0, min(len(self._ours) - i, len(self._theirs) - j)
        while length < most:
            end = min(length + _CHUNK, most)
            differ = self._ours[i + length : i + end] != self._theirs[j + length : j + end]
            first = int(differ.argmax())
            if differ[first]:
                return length + first
            length = end
        return most

    def _edit(
        self, i: int, j: int, *, to_end: bool = False
    ) -> tuple[Pairs, tuple[int, int]] | None:
        """Return the pairs within the shortest edit from here, and where it ends; None if it would be long.

        It ends with enough equal rows, or with fewer at the end of either side; with none if it may go `to_end`. If
        differences are dense, it ends where the edit that came furthest is.
        """
        ours, theirs = self._our_list, self._their_list
        n, m = len(ours) - i, len(theirs) - j
        least = 0 if to_end else COMMIT // 4
        reached: dict[int, int] = {1: 0}
        history: list[dict[int, int]] = []
        for edits in range(_MOST_EDITS + 1):
            history.append(reached.copy())
            ends: list[tuple[int, int]] = []
            for k in range(-edits, edits + 1, 2):
                x = _furthest(reached, k, edits)
                y = x - k
                begin = x
                while x < n and y < m and x - begin < COMMIT and ours[i + x] == theirs[j + y]:
                    x, y = x + 1, y + 1
                reached[k] = x
                over = x <= n and y <= m and (x == n or y == m)
                if x - begin == COMMIT or (over and x - begin >= least):
                    ends.append((k, begin))
            if ends:
                k, x = max(ends, key=lambda end: self._worth(i, j, *end))
                return _path(history, k, x, i, j), (i + x, j + x - k)
            if edits in _ENOUGH:
                k, x = _furthest_of(reached, n, m)
                if 2 * x - k - edits >= 2 * _ENOUGH[edits] * edits:
                    return _path(history, k, x, i, j), (i + x, j + x - k)
        return None

    def _worth(self, i: int, j: int, k: int, x: int) -> tuple[int, int]:
        return self.equal_from(i + x, j + x - k), -abs(k)

    def _jump(self, i: int, j: int) -> tuple[Pairs, tuple[int, int]] | None:
        """Return the nearest place from here at which both go on alike; None if there is none."""
        for width in (COMMIT, COMMIT // 4):
            places, hashes = self._windows(width)
            best: tuple[int, int, int] | None = None
            for row in range(j, len(hashes)):
                if best is not None and row - j >= best[0]:
                    break
                own = places.get(hashes[row], ())
                at = bisect_left(own, i)
                if at < len(own) and (best is None or own[at] - i + row - j < best[0]):
                    best = (own[at] - i + row - j, own[at], row)
            if best is not None and best[0]:
                return [], best[1:]
        return None

    def _windows(self, width: int) -> tuple[dict[int, list[int]], list[int]]:
        if width not in self._places:
            places: dict[int, list[int]] = {}
            for place, one in enumerate(windows(self._ours, width).tolist()):
                places.setdefault(one, []).append(place)
            self._places[width] = places
            self._hashes[width] = windows(self._theirs, width).tolist()
        return self._places[width], self._hashes[width]


def _furthest(reached: dict[int, int], k: int, edits: int) -> int:
    """Return how far of ours one edit more leads on diagonal k: by a row of theirs, or by one of ours."""
    if k == -edits or (k != edits and reached[k - 1] < reached[k + 1]):
        return reached[k + 1]
    return reached[k - 1] + 1


def _furthest_of(reached: dict[int, int], n: int, m: int) -> tuple[int, int]:
    """Return the diagonal on which an edit came furthest within n rows of ours and m of theirs, and how far."""
    inside = [(k, x) for k, x in reached.items() if x <= n and x - k <= m]
    return max(inside, key=lambda one: (2 * one[1] - one[0], -abs(one[0])), default=(0, 0))


def _path(history: list[dict[int, int]], k: int, x: int, i: int, j: int) -> Pairs:
    """Return the equal rows on the way to (x, x - k), the beginning of a run, from (i, j)."""
    found: Pairs = []
    for edits in range(len(history) - 1, 0, -1):
        before = history[edits]
        by_theirs = k == -edits or (k != edits and before[k - 1] < before[k + 1])
        last = k + 1 if by_theirs else k - 1
        entered = before[last] if by_theirs else before[last] + 1  # where diagonal k was entered
        found += [(i + row, j + row - k) for row in range(x - 1, entered - 1, -1)]
        k, x = last, before[last]
    found += [(i + row, j + row - k) for row in range(x - 1, -1, -1)]
    return found[::-1]
