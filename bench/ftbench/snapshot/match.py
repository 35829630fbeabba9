"""Match: the allocations of a recording and those that a prediction expects, side by side."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ftbench.records.predicted_allocations import PredictedAllocations
from ftbench.snapshot.align import Alignment
from ftbench.snapshot.expected import Expected, Integers, expected_of
from ftbench.snapshot.history import Rows
from ftbench.snapshot.slide import side_of, slid

Bools = NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """Rows of `ours` (expected) and `theirs` (recorded) that belong together: `same` in size and order.

    `start` and `end` are the rows (ours, theirs) at which the comparison begins and ends: at the end of one of
    the two, or where they have nothing in common any more. `other_size` pairs rows between the same neighbours,
    as many on both sides: another size was requested there.
    """

    expected: Expected
    nbytes: Integers
    streams: Integers
    ended: Integers
    start: tuple[int, int]
    end: tuple[int, int]
    same: Integers  # two columns: ours, theirs
    other_size: Integers

    @cached_property
    def pairs(self) -> Integers:
        """Return all rows that belong together, in order."""
        both = np.concatenate([self.same, self.other_size])
        return both[np.argsort(both[:, 1], kind="stable")]

    @property
    def last(self) -> tuple[int, int]:
        """Return the rows (ours, theirs) after the last pair."""
        if not len(self.pairs):
            return self.start
        ours, theirs = self.pairs[-1].tolist()
        return ours + 1, theirs + 1

    @property
    def theirs_end(self) -> int:
        """Return the row of theirs after the last one that was compared."""
        return len(self.nbytes) if self.end[1] == len(self.nbytes) else self.last[1]

    @property
    def rest(self) -> int:
        """Return the number of rows of theirs after the last one that was compared."""
        return len(self.nbytes) - self.theirs_end

    @property
    def ours_are_over(self) -> bool:
        """Whether theirs has all that was expected, to the last row: what comes after it was not expected."""
        return self.last[0] == len(self.expected)

    @cached_property
    def extra(self) -> Integers:
        """Return the rows of theirs that were not expected, as far as it was compared."""
        return np.setdiff1d(np.arange(self.theirs_end), self.pairs[:, 1])

    @cached_property
    def missing(self) -> Integers:
        """Return the rows of ours that are not in theirs, as far as it was compared."""
        return np.setdiff1d(np.arange(self.start[0], self.last[0]), self.pairs[:, 0])

    @cached_property
    def other_stream(self) -> Bools:
        """Return which of `pairs` are on another stream: not on the one that most of its stream are on.

        No stream of theirs stands for two of ours: it is that of the one with more rows.
        """
        ours, theirs = self.expected.streams[self.pairs[:, 0]], self.streams[self.pairs[:, 1]]
        found = np.zeros(len(ours), dtype=bool)
        taken: set[int] = set()
        numbers, rows = np.unique(ours, return_counts=True)
        for stream in numbers[np.argsort(-rows, kind="stable")]:
            here = ours == stream
            usual = int(np.bincount(theirs[here]).argmax())
            found[here] = (theirs[here] != usual) | (usual in taken)
            taken.add(usual)
        return found

    @cached_property
    def release(self) -> NDArray[np.int8]:
        """Return when each of `pairs` is freed: 0 as expected, 1 later, 2 not at all, -1 earlier.

        A release lies between two allocations. It is as expected if it can lie there in both: between the same rows
        of `pairs`. Releases that one side has not reached at the end of the other are as expected.
        """
        ours, theirs = self.pairs[:, 0], self.pairs[:, 1]
        due, came = self.expected.ended[ours], self.ended[theirs]
        rank = np.searchsorted(ours, due)  # pairs before the expected release
        low = np.where(rank > 0, theirs[rank - 1] + 1, 0)
        last = np.append(theirs, self.theirs_end)
        high = last[rank]
        known = (due >= 0) & (due < self.last[0])  # the other side has come so far
        found = np.zeros(len(ours), dtype=np.int8)
        found[known & (came > high)] = 1
        found[known & (came < 0)] = 2
        reached = (came >= 0) & (came < self.last[1])
        found[reached & known & (came < low)] = -1
        later = (due < 0) | (due >= self.last[0])
        found[reached & later] = -1
        return found


def match(allocations: PredictedAllocations, rows: Rows, *, whole: bool) -> Match:
    """Return the recorded rows beside the predicted ones; `whole` says that the recording has the beginning."""
    found: list[Match] = []
    for expected in expected_of(allocations, rows.nbytes, whole=whole):
        found.append(_matched(expected, rows, whole=whole))
        if whole and not found[-1].rest:
            break
    return max(found, key=lambda one: len(one.same))


def _matched(expected: Expected, rows: Rows, *, whole: bool) -> Match:
    nbytes = np.array(rows.nbytes, dtype=np.int64)
    alignment = Alignment(expected.nbytes, nbytes)
    start = (0, 0) if whole else alignment.beginning()
    same, end = alignment.pairs(start)
    if not whole:
        same = np.concatenate([_backwards(expected.nbytes, nbytes, start), same])
        if len(same):  # what comes before in ours comes before the recording, too
            start = (int(same[0, 0]), int(same[0, 1]))
    ended = np.array(rows.ended, dtype=np.int64)
    same = slid(same, side_of(expected.nbytes, expected.ended), side_of(nbytes, ended))
    return Match(
        expected=expected,
        nbytes=nbytes,
        streams=np.array(rows.streams, dtype=np.int64),
        ended=ended,
        start=start,
        end=end,
        same=same,
        other_size=_other_sizes(same, start),
    )


def _backwards(ours: Integers, theirs: Integers, start: tuple[int, int]) -> Integers:
    """Return the rows that are the same before a place, going back from it to the beginning of theirs."""
    i, j = start
    pairs, _ = Alignment(ours[:i][::-1], theirs[:j][::-1]).pairs()
    return np.array([i - 1, j - 1]) - pairs[::-1]


def _other_sizes(same: Integers, start: tuple[int, int]) -> Integers:
    """Return the rows between the same neighbours, as many on both sides."""
    edges = np.concatenate([[[start[0] - 1, start[1] - 1]], same])
    gaps = np.diff(edges, axis=0) - 1
    found = [
        np.stack([edges[at, 0] + 1 + np.arange(count), edges[at, 1] + 1 + np.arange(count)], axis=1)
        for at in np.flatnonzero((gaps[:, 0] == gaps[:, 1]) & (gaps[:, 0] > 0)).tolist()
        for count in [int(gaps[at, 0])]
    ]
    return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)
