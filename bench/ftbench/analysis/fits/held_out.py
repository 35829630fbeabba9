"""Held out: how far an estimate is off on cells that it was not given, and how much that widens it.

Whole cells are left out, with all their runs: a repeat of a cell says nothing of other cells. The
estimate is made anew for each, its choice of a law included (Stone 1974; Varma and Simon 2006 on why
the choice belongs inside). If an interval is narrower than the errors that were seen, it is widened to
the error that 95 in 100 stay below, as in split conformal prediction (Vovk et al. 2005).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ftbench.analysis.fits.laws import CONFIDENCE, HeldOut
from ftbench.analysis.fits.regression import Numbers, TooFewCellsError, cells_of

# Columns of numbers, one entry per run (or point), all of one length.
Columns = Mapping[str, Numbers]
# Costs at points, and half their 95 % intervals as differences of logarithms.
Predict = Callable[[Columns], tuple[Numbers, Numbers]]
Estimator = Callable[[Columns], Predict]
_Mask = NDArray[np.bool_]
# Differences of logarithms below this are rounding.
_ROUNDING = 1e-9
# Cells left out one at a time: each needs a new fit, and this many give a good median error.
MOST_LEFT_OUT = 40
_SEED = 13


@dataclasses.dataclass(frozen=True)
class Reach:
    """The values of one axis that were measured, and the error of going beyond the largest.

    `error` (a difference of logarithms) was seen over `doublings` of the axis.
    """

    smallest: float
    largest: float
    error: float
    doublings: float

    def margin(self, value: float) -> float:
        """Return the error to expect at a value outside: in proportion to its distance, in doublings."""
        beyond = max(math.log2(value / self.largest), math.log2(self.smallest / value))
        return self.error * max(1.0, beyond / self.doublings) if beyond > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Validation:
    """The errors on cells that were left out; those here are differences of logarithms.

    `inside` is the error that the cells inside the rest stay below; `reach` has the axes.
    """

    interpolation: HeldOut | None
    extrapolation: HeldOut | None
    inside: float
    reach: Mapping[str, Reach]

    def margin(self, point: Mapping[str, float]) -> float:
        """Return the least half-width of an interval at a point; on an axis that it lacks, it counts as inside."""
        beyond = sum(
            reach.margin(float(point[axis])) for axis, reach in self.reach.items() if axis in point
        )
        return max(self.inside, beyond)


@dataclasses.dataclass(frozen=True)
class _Errors:
    """Predictions of held-out cells against their measured means, and half the intervals they had."""

    cell: NDArray[np.intp]
    share: Numbers
    logarithm: Numbers
    half: Numbers


def cross_validate(
    runs: Columns, cost: str, axes: Sequence[str], estimate: Estimator
) -> Validation:
    """Return how an estimate of a cost does on cells left out; cells differ on `axes`."""
    cells, cell = cells_of([runs[axis] for axis in axes])

    def errors(left_out: _Mask) -> _Errors | None:
        return _errors(runs, cost, cell, left_out, estimate)

    inside = _gathered([errors(cell == number) for number in _drawn(list(_inner(cells)))])
    edges = {
        axis: errors(runs[axis] == runs[axis].max())
        for axis in axes
        if len(np.unique(runs[axis])) > 1
    }
    beyond = _once_a_cell(_gathered(edges.values()))
    seen = [found.logarithm.max() for found in (inside, beyond) if found is not None]
    untested = float(max(seen, default=0.0))
    return Validation(
        interpolation=_held_out("interpolation", inside),
        extrapolation=_held_out(
            "extrapolation",
            beyond,
            {axis: float(np.median(of.share)) for axis, of in edges.items() if of is not None},
        ),
        inside=_quantile(inside.logarithm) if inside is not None else untested,
        reach={axis: _reach(runs[axis], edges.get(axis), untested) for axis in axes},
    )


def _drawn(numbers: Sequence[int]) -> Sequence[int]:
    """Return as many of the cells as are left out, drawn at random if a grid has more."""
    if len(numbers) <= MOST_LEFT_OUT:
        return numbers
    chosen = np.random.default_rng(_SEED).permutation(len(numbers))[:MOST_LEFT_OUT]
    return [numbers[place] for place in sorted(chosen)]


def _inner(cells: Numbers) -> Iterator[int]:
    """Yield the numbers of the cells that lie inside the others: on each axis, and in all together.

    A corner of a grid lies within the others' values of each axis, but its product does not.
    """
    values = np.column_stack([cells, np.prod(cells, axis=1)])
    for number, own in enumerate(values):
        rest = np.delete(values, number, axis=0)
        if len(rest) and ((rest.min(axis=0) <= own) & (own <= rest.max(axis=0))).all():
            yield number


def _errors(
    runs: Columns, cost: str, cell: NDArray[np.intp], left_out: _Mask, estimate: Estimator
) -> _Errors | None:
    """Return the errors on the cells left out; None if nothing can be fitted to the others."""
    try:
        predict = estimate({name: column[~left_out] for name, column in runs.items()})
    except TooFewCellsError:
        return None
    _, first, own = np.unique(cell[left_out], return_index=True, return_inverse=True)
    measured = np.bincount(own, weights=runs[cost][left_out]) / np.bincount(own)
    predicted, half = predict({name: column[left_out][first] for name, column in runs.items()})
    logarithm = np.abs(np.log(predicted / measured))
    return _Errors(cell[left_out][first], np.abs(predicted / measured - 1), logarithm, half)


def _gathered(several: Iterable[_Errors | None]) -> _Errors | None:
    """Return the errors of all folds together; None if there are none."""
    found = [dataclasses.astuple(errors) for errors in several if errors is not None]
    return _Errors(*map(np.concatenate, zip(*found, strict=True))) if found else None


def _once_a_cell(errors: _Errors | None) -> _Errors | None:
    """Return the errors with each cell once: of a corner of the grid the larger."""
    if errors is None:
        return None
    worst = np.lexsort((-errors.logarithm, errors.cell))
    first = worst[np.unique(errors.cell[worst], return_index=True)[1]]
    return _Errors(*(column[first] for column in dataclasses.astuple(errors)))


def _held_out(
    kind: Literal["interpolation", "extrapolation"],
    errors: _Errors | None,
    by_axis: Mapping[str, float] = MappingProxyType({}),
) -> HeldOut | None:
    if errors is None:
        return None
    return HeldOut(
        kind=kind,
        cells=len(np.unique(errors.cell)),
        median_error=float(np.median(errors.share)),
        largest_error=float(errors.share.max()),
        within=float(np.mean(errors.logarithm <= errors.half + _ROUNDING)),
        by_axis=dict(by_axis),
    )


def _quantile(errors: Numbers) -> float:
    """Return the error that the next one stays below in 95 of 100 cases, at most the largest seen."""
    rank = math.ceil(CONFIDENCE * (len(errors) + 1))
    return float(np.sort(errors)[min(rank, len(errors)) - 1])


def _reach(values: Numbers, errors: _Errors | None, untested: float) -> Reach:
    """Return how far an axis was measured, and the error beyond; of an axis not tested, a doubling's."""
    known = np.unique(values)
    if errors is None:
        return Reach(known[0], known[-1], untested, 1.0)
    return Reach(
        known[0], known[-1], float(errors.logarithm.max()), math.log2(known[-1] / known[-2])
    )
