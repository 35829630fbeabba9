"""The expected allocations of a run with as many steps as a snapshot has: those of a prediction, a step repeated.

A prediction has the set-up and the first steps. Once two steps in a row make the same allocations, so do all that
follow, and the first of the two is repeated between them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ftbench.records.predicted_allocations import PredictedAllocations

Integers = NDArray[np.int64]
EVALUATION = "evaluation"
_WINDOW = 16  # allocations that name a place in a step
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
_WINDOWS = 64  # places of a step that are looked for


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """Allocations in order, as in `PredictedAllocations`; `parts` are indices in its `part_names`."""

    nbytes: Integers
    streams: Integers
    ended: Integers
    parts: Integers

    def __len__(self) -> int:
        """Return the number of allocations."""
        return len(self.nbytes)

    @cached_property
    def requested(self) -> Integers:
        """Return the requested bytes that are live after each allocation."""
        return live_after(self.nbytes, self.ended)


def live_after(nbytes: Integers, ended: Integers) -> Integers:
    """Return the bytes that are live after each allocation; those with `ended` -1 are not freed."""
    gone = np.zeros(len(nbytes) + 1, dtype=np.int64)
    freed = (ended >= 0) & (ended <= len(nbytes))
    np.add.at(gone, ended[freed], nbytes[freed])
    return np.cumsum(nbytes - gone[:-1])


def expected_of(
    allocations: PredictedAllocations, recorded: Sequence[int], *, whole: bool
) -> tuple[Expected, ...]:
    """Return the allocations to expect in a recording, with as many steps as its sizes show.

    Those of one step more come second: the recording may end in it. If it is not `whole`, they have steps enough
    for it to have begun in any of them. What fits better is right.
    """
    columns = (allocations.nbytes, allocations.streams, allocations.ended, allocations.parts)
    once = Expected(*(np.array(column, dtype=np.int64) for column in columns))
    steps = _steady_steps(allocations)
    if steps is None:
        return (once,)
    begin, middle = steps
    fewest = _missing_steps(once.nbytes, np.array(recorded, dtype=np.int64), begin, middle)
    most = fewest + 1 if whole else len(recorded) // (middle - begin) + 1
    return tuple(_repeated(once, begin, middle, number) for number in (fewest, most))


def _steady_steps(allocations: PredictedAllocations) -> tuple[int, int] | None:
    """Return the rows at which the last two steps begin, if their sizes are the same; else None."""
    names = allocations.part_names
    step_of = np.array([0 if one.phase == EVALUATION else one.step for one in names] or [0])
    steps = step_of[np.array(allocations.parts, dtype=np.int64)]
    last = int(steps.max(initial=0))
    if last < 2:
        return None
    own, before = np.flatnonzero(steps == last), np.flatnonzero(steps == last - 1)
    begin, middle, end = int(before[0]), int(own[0]), int(own[-1]) + 1
    sizes = allocations.nbytes
    same = end - middle == middle - begin and sizes[begin:middle] == sizes[middle:end]
    return (begin, middle) if same else None


def windows(sizes: Integers, width: int) -> NDArray[np.uint64]:
    """Return a hash of each `width` allocations in a row, by the first of them."""
    count = max(len(sizes) - width + 1, 0)
    found = np.zeros(count, dtype=np.uint64)
    mixed = sizes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    for place in range(width if count else 0):
        found = found * np.uint64(0xD1342543DE82EF95) + mixed[place : place + count]
    return found


def _missing_steps(ours: Integers, theirs: Integers, begin: int, middle: int) -> int:
    """Return how many steps more a recording has than a prediction, of which one step is [begin, middle)."""
    width = min(_WINDOW, middle - begin)
    own, other = windows(ours, width), np.sort(windows(theirs, width))
    differences = []
    for place in np.unique(np.linspace(begin, middle - 1, _WINDOWS).astype(int)).tolist():
        if place >= len(own) or (own[begin:middle] == own[place]).sum() != 1:
            continue
        first, last = (int(np.searchsorted(other, own[place], side)) for side in _SIDES)
        if last > first:
            differences.append(last - first - int((own == own[place]).sum()))
    if differences:
        return max(int(np.median(differences)), 0)
    return max((len(theirs) - len(ours)) // (middle - begin), 0)


def _repeated(once: Expected, begin: int, middle: int, copies: int) -> Expected:
    """Return the allocations with the rows [begin, middle) repeated so many times more, at `middle`."""

    def laid(column: Integers) -> Integers:
        return np.concatenate([column[:middle], *[column[begin:middle]] * copies, column[middle:]])

    return Expected(
        laid(once.nbytes),
        laid(once.streams),
        _ends(once.ended, begin, middle, copies),
        laid(once.parts),
    )


def _ends(ended: Integers, begin: int, middle: int, copies: int) -> Integers:
    """Return the releases of all rows with those of the copies.

    What a step leaves to the next is freed by the next, which is a copy, at the same distance; what is freed after
    all steps moves with the rows that follow them.
    """
    length = middle - begin
    rows = np.arange(len(ended))
    unit = (rows >= begin) & (rows < middle)
    near = np.where(unit, ended <= middle + length, ended <= middle)
    moved = np.where((ended < 0) | ((rows < middle) & near), ended, ended + copies * length)
    own, soon = ended[unit], near[unit]
    more = [
        np.where(own < 0, own, own + np.where(soon, number, copies) * length)
        for number in range(1, copies + 1)
    ]
    return np.concatenate([moved[:middle], *more, moved[middle:]])
