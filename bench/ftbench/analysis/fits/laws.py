"""Laws: the results of fits, as plain values; the fitting itself is in `scaling` and `learning`.

Every figure that was not measured comes with a 95 % interval, and every fit with its error on cells
that it has not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from ftbench.analysis.fits.reasons import Reason, Weakness
from ftbench.plan.scores import ScoreKind

CONFIDENCE = 0.95
# What the noise of a cost is known from: runs of the same cell, the residual of the fit, or predictions,
# which have none.
NoiseSource = Literal["repeats", "residual", "predictions"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value and the interval that holds the true one in 95 of 100 cases."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How far a fit is off on cells that it was not given, as shares of the measured value.

    `interpolation` leaves out one cell at a time that lies inside the rest; `extrapolation` leaves out the
    largest cells of an axis together, and is fitted to the others; a cell that is the largest of two counts
    once, with the larger error. `within` is the share of them inside the interval, as it was before these
    errors widened it. `by_axis` has the median error beyond each axis.
    """

    kind: Literal["interpolation", "extrapolation"]
    cells: int
    median_error: float
    largest_error: float
    within: float
    by_axis: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why there is no fit of a cost; `fixed` has the settings of the cells that it is about."""

    cost: str
    reason: Reason
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law of one cost over the cells of one group.

    `cost` is a column of the table, `law` its formula, `coefficients` its constants in the cost's unit.
    `predict` takes a point (`max_length`, `per_device_train_batch_size`, `train_size`, ...) and returns
    the cost of one more run there. `weak` has the checks that the fit failed; empty if it passed all.
    `axes` are those of the law: beyond their measured values it is extrapolated.
    """

    cost: str
    law: str
    coefficients: Mapping[str, Interval]
    runs: int
    cells: int
    predict: Callable[[Mapping[str, Any]], Interval]
    interpolation: HeldOut | None
    extrapolation: HeldOut | None
    weak: tuple[Weakness, ...] = ()
    exact: bool = False  # no residual beyond the allocator's alignment: a law, not an estimate
    axes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Exponent:
    """The local exponent d log cost / d log axis between two values of an axis, all others fixed.

    2 ** exponent is the ratio that a doubling costs. `source` is what its interval is from.
    """

    cost: str
    axis: str
    fixed: Mapping[str, Any]
    start: float
    end: float
    exponent: Interval
    source: NoiseSource | None = None


@dataclasses.dataclass(frozen=True)
class FitGroup:
    """The fits of cells that differ in length, batch and training examples only; `fixed` is the same in all."""

    fixed: Mapping[str, Any]
    fits: Mapping[str, Fit]
    refused: tuple[Refusal, ...]
    exponents: tuple[Exponent, ...]


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """A score against training examples: 1 - score = floor + a * examples ** -b, over replicates.

    `points` has, for every size, the mean score and its interval, and the number of seeds; `predict` returns
    that of one more run with so many examples. All are of the evaluation examples at hand:
    `evaluation_error` is how far as many others would move the whole curve, in 95 of 100 cases.
    """

    score: ScoreKind
    fixed: Mapping[str, Any]
    floor: Interval
    a: Interval
    b: Interval
    points: Mapping[int, tuple[Interval, int]]
    predict: Callable[[float], Interval]
    interpolation: HeldOut | None
    extrapolation: HeldOut | None
    weak: tuple[Weakness, ...] = ()
    evaluation_error: float | None = None  # a difference of scores
