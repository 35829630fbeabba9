"""Moment: what is live in a recording at its peak, and what a prediction has live at the same place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ftbench.snapshot.expected import Integers
from ftbench.snapshot.history import Earlier, History
from ftbench.snapshot.match import Bools, Match


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """Which rows are live, recorded (`theirs`) and expected (`ours`); `earlier` are live blocks from before.

    `before` are the rows of ours before the beginning of the recording.
    """

    theirs: Bools
    ours: Bools
    earlier: tuple[Earlier, ...]
    before: Integers


def moment_of(found: Match, history: History) -> Moment:
    """Return the moment of the recorded peak, as far as the recording was compared.

    A pair whose release is as expected is live on both sides or on neither: the order of releases between two
    allocations says nothing.
    """
    requested = np.array(history.rows.requested[: found.theirs_end], dtype=np.int64)
    peak = int(requested.argmax()) if len(requested) else -1
    theirs = _live(found.ended, peak)
    ours_peak = _row_before(found, peak)
    ours = _live(found.expected.ended, ours_peak)
    agreed = found.pairs[found.release == 0]
    ours[agreed[:, 0]] = theirs[agreed[:, 1]]
    earlier = tuple(one for one in history.earlier if one.ended < 0 or one.ended > peak)
    before = np.flatnonzero(ours[: found.start[0]])
    return Moment(theirs, ours, earlier, before)


def own_peaks(found: Match, history: History) -> Moment:
    """Return the peak of the whole recording, and the peak of what is expected, which may be another moment."""
    rows = history.rows.requested
    peak = int(np.argmax(rows)) if rows else -1
    ours = int(found.expected.requested.argmax()) if len(found.expected) else -1
    return Moment(
        _live(found.ended, peak),
        _live(found.expected.ended, ours),
        tuple(one for one in history.earlier if one.ended < 0 or one.ended > peak),
        np.zeros(0, dtype=np.int64),
    )


def _live(ended: Integers, row: int) -> Bools:
    """Return which allocations are live right after one of them is made."""
    live: Bools = (np.arange(len(ended)) <= row) & ((ended < 0) | (ended > row))
    return live


def _row_before(found: Match, row: int) -> int:
    """Return the row of ours that belongs to a row of theirs, or to the last pair before it."""
    place = int(np.searchsorted(found.pairs[:, 1], row, "right"))
    return int(found.pairs[place - 1, 0]) if place else found.start[0] - 1


def bytes_of(earlier: Sequence[Earlier]) -> int:
    """Return the requested bytes of blocks."""
    return sum(one.nbytes for one in earlier)
