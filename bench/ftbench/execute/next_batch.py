"""Batch search: the batch to try next, and the largest that fits, from the probes so far. Pure.

Memory is assumed to grow with the batch: if a size fits, so do all smaller ones. Each probe costs a
process and two optimizer steps, so the next size is the one at which the peaks so far are predicted to reach
the limit (a straight line through the two largest that fit), restricted to the sizes not yet decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ftbench.records.batch_probe import BatchProbe

# Without peaks to extrapolate, the batch is doubled.
_DOUBLE = 2
# The largest factor between a batch that fits and the next one.
_FASTEST = 8
# After this many probes, halving replaces the extrapolation: of 256 batches none needs more than 8 + 8 probes.
_PATIENCE = 8


@dataclasses.dataclass(frozen=True)
class Edge:
    """The largest batch known to fit, and the smallest known not to fit; None if there is no such batch."""

    fits: BatchProbe | None
    fails: BatchProbe | None
    undecided: BatchProbe | None = None  # a probe that failed for another reason than memory

    @property
    def decided(self) -> bool:
        """Return whether no batch size lies between the two."""
        low = self.fits.batch if self.fits else 0
        return self.undecided is None and self.fails is not None and self.fails.batch == low + 1


def edge(tries: Sequence[BatchProbe]) -> Edge:
    """Return the edge that the probes of one shape have established."""
    fits = [probe for probe in tries if probe.fits]
    fails = [probe for probe in tries if probe.fits is False]
    undecided = [probe for probe in tries if probe.fits is None]
    return Edge(
        fits=max(fits, key=lambda probe: probe.batch, default=None),
        fails=min(fails, key=lambda probe: probe.batch, default=None),
        undecided=undecided[0] if undecided else None,
    )


def next_batch(tries: Sequence[BatchProbe], limit_bytes: int, largest: int) -> int | None:
    """Return the batch to try next, at most `largest`; None if the edge is decided.

    A probe that failed for another reason than memory ends the search.
    """
    found = edge(tries)
    if found.decided or found.undecided is not None:
        return None
    low = found.fits.batch if found.fits else 0
    high = found.fails.batch if found.fails else min(largest, max(low, 1) * _FASTEST) + 1
    if low >= largest or high <= low + 1:  # the latter also if probes contradict each other
        return None
    guess = _where_the_limit_is(tries, limit_bytes)
    if found.fails is not None and len(tries) >= _PATIENCE:
        guess = (low + high) // 2  # noisy peaks mislead the extrapolation; halving always ends
    elif guess is None:
        guess = low * _DOUBLE if found.fails is None else (low + high) // 2
    elif (
        guess <= low
    ):  # by the line, `low` is the largest that fits: check whether the next one fails
        guess = low + _stride(sorted(probe.batch for probe in tries if probe.fits))
    elif guess >= high and found.fails is not None:
        failed = sorted((probe.batch for probe in tries if probe.fits is False), reverse=True)
        guess = high - _stride(failed)
    return min(max(guess, low + 1), high - 1)


def _stride(batches: Sequence[int]) -> int:
    """Return the size of the step past the last of these batch sizes: 1, then 2, 4, ... until it is enough.

    A gap that is too wide for such steps comes from an extrapolation: then the steps start again at 1.
    """
    gap = abs(batches[-1] - batches[-2]) if len(batches) > 1 else 0
    return _DOUBLE * gap if 0 < gap <= _DOUBLE ** (len(batches) - 1) else 1


def _where_the_limit_is(tries: Sequence[BatchProbe], limit_bytes: int) -> int | None:
    """Return the largest batch below the limit on the line through the two largest that fit."""
    known = sorted(
        (
            (probe.batch, probe.peak_bytes)
            for probe in tries
            if probe.fits and probe.peak_bytes is not None
        ),
    )[-2:]
    if len(known) < 2:
        return None
    (small, below), (large, above) = known
    if above <= below:
        return None
    return large + int((limit_bytes - above) * (large - small) / (above - below))
