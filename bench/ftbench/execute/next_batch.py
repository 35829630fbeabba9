"""Frontier: which batch to try next, and the largest that fits, from the tries so far. Pure.

Memory is taken to grow with the batch: what fits at one size fits below it. Each answer costs a
process and two optimizer steps, so the next size is where the peaks so far say that the limit is hit
(a straight line through the two largest that fit), held inside what is still undecided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ftbench.records.batch_probe import BatchProbe

# Where no peak says better: a batch is doubled; and never grows faster than this from one that fits.
_DOUBLE = 2
_FASTEST = 8
# Tries after which the line has had its chance.
_PATIENCE = 12


@dataclasses.dataclass(frozen=True)
class Edge:
    """The largest batch known to fit, and the smallest known not to; None where there is none."""

    fits: BatchProbe | None
    fails: BatchProbe | None
    undecided: BatchProbe | None = None  # one that ended for another reason than memory

    @property
    def decided(self) -> bool:
        """Return whether nothing lies between the two."""
        low = self.fits.batch if self.fits else 0
        return self.undecided is None and self.fails is not None and self.fails.batch == low + 1


def edge(tries: Sequence[BatchProbe]) -> Edge:
    """Return what a set of tries of one length says."""
    fits = [one for one in tries if one.fits]
    fails = [one for one in tries if one.fits is False]
    undecided = [one for one in tries if one.fits is None]
    return Edge(
        fits=max(fits, key=lambda one: one.batch, default=None),
        fails=min(fails, key=lambda one: one.batch, default=None),
        undecided=undecided[0] if undecided else None,
    )


def next_batch(tries: Sequence[BatchProbe], limit_bytes: int, largest: int) -> int | None:
    """Return the batch to try next, at most `largest`; None where the tries have decided it.

    A try that ended for another reason than memory ends the search: nothing more can be said.
    """
    found = edge(tries)
    if found.decided or found.undecided is not None:
        return None
    low = found.fits.batch if found.fits else 0
    high = found.fails.batch if found.fails else min(largest, max(low, 1) * _FASTEST) + 1
    if low >= largest or high <= low + 1:  # or tries that contradict each other
        return None
    guess = _where_the_limit_is(tries, limit_bytes)
    if found.fails is not None and len(tries) >= _PATIENCE:
        guess = (low + high) // 2  # peaks that waver lead the line about: halving is sure
    elif guess is None:
        guess = low * _DOUBLE if found.fails is None else (low + high) // 2
    elif guess <= low:  # the line says that it is found: see whether the next one fails
        guess = low + _stride(sorted(one.batch for one in tries if one.fits))
    elif guess >= high and found.fails is not None:
        failed = sorted((one.batch for one in tries if one.fits is False), reverse=True)
        guess = high - _stride(failed)
    return min(max(guess, low + 1), high - 1)


def _stride(batches: Sequence[int]) -> int:
    """Return how far to step past the last of these sizes: 1, then 2, 4, ... while it was too short.

    A gap wider than steps can have made so far was a jump along the line: then it begins at 1.
    """
    gap = abs(batches[-1] - batches[-2]) if len(batches) > 1 else 0
    return _DOUBLE * gap if 0 < gap <= _DOUBLE ** (len(batches) - 1) else 1


def _where_the_limit_is(tries: Sequence[BatchProbe], limit_bytes: int) -> int | None:
    """Return the largest batch below the limit on the line through the two largest that fit."""
    known = sorted(
        ((one.batch, one.peak_bytes) for one in tries if one.fits and one.peak_bytes is not None),
    )[-2:]
    if len(known) < 2:
        return None
    (small, below), (large, above) = known
    if above <= below:
        return None
    return large + int((limit_bytes - above) * (large - small) / (above - below))
