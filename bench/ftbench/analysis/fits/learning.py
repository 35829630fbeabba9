"""Learning curves: how a score rises with training examples, or why the runs cannot say.

    error = 1 - score = floor + a * examples ** -b        (Cortes et al. 1994; Hestness et al. 2017)

Fitted to the mean error of every size over its seeds. A run's variance is that of a share, p(1 - p), or of a
correlation, (1 - r^2)^2 (Fisher 1915), times a dispersion known from the seeds (quasi-likelihood, Wedderburn
1974). For a given b the law is linear in
floor and a, both of them not negative, so b is searched alone (variable projection, Golub and Pereyra 1973).
Intervals are from a bootstrap over the seeds' residuals, with a seed of its own; if the means miss the
law by more than seeds explain, it is widened by that ratio (Birge 1932), and for few seeds by Student's t.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ftbench.analysis.fits.held_out import Columns, Validation, cross_validate
from ftbench.analysis.fits.laws import CONFIDENCE, Interval, LearningCurve, Refusal
from ftbench.analysis.fits.reasons import (
    ErrorAboveThreshold,
    ExponentUnknown,
    NoRise,
    NoScore,
    NoSizesToCompare,
    Reason,
    TooFewSeeds,
    TooFewSizes,
    Weakness,
)
from ftbench.analysis.fits.regression import NORMAL, Numbers, TooFewCellsError, cells_of, student
from ftbench.analysis.tables.cells_table import SCORE_ERROR, headline_score
from ftbench.plan.scores import ACCURACY, ScoreKind

AXIS = "train_size"
# One more than the law has constants, so that one size can be left out.
SIZES = 4
# Runs beyond the first of each size that their spread is known from.
SPARE_SEEDS = 3
# Exponents that are searched: published ones are 0.05 to 0.5 in the power law's regime (Hestness et al.),
# above 1 / 2 if a model is fine-tuned.
EXPONENTS = (0.05, 2.0)
# An interval of b over more than this share of them, in logarithms, says that nothing is known of it.
UNKNOWN_SHARE = 0.9
# The median share of the score by which held-out sizes may be missed: seeds alone move it by one point.
WEAK_ACCURACY = 0.02

_DRAWS = 400
_SEED = 20
_GRID = np.geomspace(*EXPONENTS, 160)
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


def learning_curves(
    table: pd.DataFrame, axes: Sequence[str]
) -> tuple[LearningCurve | Refusal, ...]:
    """Return curves of the headline score, or why there are none, of cells that differ in size and seed only.

    `table` has one row per run, as `scaling_table` makes it; `axes` are those that its cells differ in.
    """
    score = headline_score(table)
    runs = table.dropna(subset=[score.column])
    if runs.empty:
        return (Refusal(score.column, NoScore(score)),) if len(table) else ()
    others = [name for name in axes if name not in (AXIS, "seed")]
    groups = runs.groupby(others, dropna=False) if others else [((), runs)]
    found = [
        _curve(dict(zip(others, key, strict=True)), group, score)
        for key, group in groups
        if group[AXIS].nunique() > 1
    ]
    return tuple(found) or (Refusal(score.column, NoSizesToCompare()),)


def _curve(
    fixed: Mapping[str, Any], runs: pd.DataFrame, kind: ScoreKind
) -> LearningCurve | Refusal:
    column = kind.column
    # Repeats of one seed are the same training again, and no further evidence.
    means = runs.groupby([AXIS, "seed"], as_index=False)[column].mean()
    columns = {name: means[name].to_numpy(dtype=float) for name in (AXIS, column)}
    sample = Seeds.of(columns, kind)
    reason = _missing(sample)
    if reason is not None:
        return Refusal(column, reason, fixed)
    power = Power.of(sample)
    low, high = (power.constants()["b"].low, power.constants()["b"].high)
    if np.log(high / low) > UNKNOWN_SHARE * np.log(EXPONENTS[1] / EXPONENTS[0]):
        return Refusal(column, ExponentUnknown(low, high), fixed)
    validation = cross_validate(
        columns, column, (AXIS,), lambda of: Power.of(Seeds.of(of, kind)).predict
    )

    def predict(examples: float) -> Interval:
        value, half = power.predict({AXIS: np.array([float(examples)])})
        margin = max(float(half[0]), validation.margin({AXIS: float(examples)}))
        return _interval(float(value[0]), margin)

    return LearningCurve(
        fixed=fixed,
        score=kind,
        points=sample.points(),
        predict=predict,
        interpolation=validation.interpolation,
        extrapolation=validation.extrapolation,
        weak=_weakness(validation),
        evaluation_error=_evaluation_error(runs),
        **power.constants(),
    )


def _interval(score: float, half: float) -> Interval:
    """Return a score with the ends of its interval, half of which is a difference of logarithms."""
    return Interval(score, score * float(np.exp(-half)), min(score * np.exp(half), 1.0))


def _missing(sample: Seeds) -> Reason | None:
    """Return why no curve can be fitted to the runs; None if one can."""
    if len(sample.size) < SIZES:
        return TooFewSizes(len(sample.size), SIZES)
    if sample.freedom < SPARE_SEEDS:
        return TooFewSeeds(sample.freedom, SPARE_SEEDS)
    first, last = sample.error[0], sample.error[-1]
    spread = student(sample.freedom) * np.sqrt(sample.variance[0] + sample.variance[-1])
    if first - last <= spread:
        sizes = int(sample.size[0]), int(sample.size[-1])
        return NoRise(sample.kind, float(1 - first), sizes[0], float(1 - last), sizes[1])
    return None


def _weakness(validation: Validation) -> tuple[Weakness, ...]:
    """Return the checks that a curve failed."""
    found = (validation.interpolation, validation.extrapolation)
    return tuple(
        ErrorAboveThreshold(of.kind, of.median_error, WEAK_ACCURACY)
        for of in found
        if of and of.median_error > WEAK_ACCURACY
    )


def _evaluation_error(runs: pd.DataFrame) -> float | None:
    """Return how far another evaluation set would move the curve; None if it is not known of all runs."""
    if SCORE_ERROR not in runs or runs[SCORE_ERROR].isna().any():
        return None
    return float(NORMAL * runs[SCORE_ERROR].max())


@dataclasses.dataclass(frozen=True)
class Seeds:
    """The sizes of the training set in rising order: their mean error and its variance over seeds.

    `residuals` are those of the runs, as multiples of the root of `variance_shape`; `dispersion` is their
    variance.
    """

    kind: ScoreKind
    size: Numbers
    error: Numbers
    variance: Numbers
    seeds: Numbers
    residuals: Numbers
    dispersion: float
    freedom: int

    @classmethod
    def of(cls, runs: Columns, kind: ScoreKind = ACCURACY) -> Seeds:
        """Return the sizes of runs, one per seed; without a second seed anywhere the dispersion is 0."""
        sizes, cell = cells_of([runs[AXIS]])
        seeds = np.bincount(cell).astype(float)
        error = 1 - np.bincount(cell, weights=runs[kind.column]) / seeds
        shape = variance_shape(error, kind)
        freedom = int(len(cell) - len(seeds))
        residuals = (1 - runs[kind.column] - error[cell]) / np.sqrt(shape[cell])
        dispersion = float(residuals @ residuals / freedom) if freedom else 0.0
        several = seeds[cell] > 1
        grown = residuals[several] * np.sqrt(seeds / np.maximum(seeds - 1, 1))[cell][several]
        variance = np.maximum(dispersion * shape / seeds, _NO_VARIANCE)
        return cls(kind, sizes[:, 0], error, variance, seeds, grown, dispersion, freedom)

    def points(self) -> dict[int, tuple[Interval, int]]:
        """Return every size's mean score with its interval, and its number of seeds."""
        half = student(self.freedom) * np.sqrt(self.variance)
        return {
            int(size): (Interval(float(1 - e), float(1 - e - h), float(1 - e + h)), int(seeds))
            for size, e, h, seeds in zip(self.size, self.error, half, self.seeds, strict=True)
        }


_NO_VARIANCE = 1e-12


def variance_shape(error: Numbers, kind: ScoreKind) -> Numbers:
    """Return a run's variance up to a factor, by its error, which is 1 less the score.

    p(1 - p) of a share, (1 - r^2)^2 of a correlation, as if none were nearer to perfect than half a per cent.
    """
    if kind.scale == "correlation":
        distance = np.clip(error, 0.005, 1.995)
        return np.asarray((distance * (2 - distance)) ** 2)
    share = np.clip(error, 0.005, 0.995)
    return np.asarray(share * (1 - share))


@dataclasses.dataclass(frozen=True)
class Power:
    """A fitted power law with its bootstrap: floor, a and b, the fit's own first, then one per draw.

    `runs` is a draw's error of one more run, as a multiple of the root of `variance_shape`.
    """

    kind: ScoreKind
    floor: Numbers
    a: Numbers
    b: Numbers
    runs: Numbers

    @classmethod
    def of(cls, sample: Seeds) -> Power:
        """Return the law of sizes; raises TooFewCellsError below three of them, or without replicates."""
        if len(sample.size) < SIZES - 1:
            raise TooFewCellsError(TooFewSizes(len(sample.size), SIZES - 1))
        if not sample.freedom:
            raise TooFewCellsError(TooFewSeeds(0, 1))
        best = _search(sample, sample.error[None], _GRID)
        place = int(np.argmin(np.abs(_GRID - best[2][0])))
        near = np.geomspace(_GRID[max(place - 1, 0)], _GRID[min(place + 1, len(_GRID) - 1)], 200)
        own = _search(sample, sample.error[None], near)
        fitted = own[0] + own[1] * sample.size ** -own[2]
        draw = np.random.default_rng(_SEED)
        excess = _birge(sample, fitted) * student(sample.freedom) / NORMAL
        means, runs = _noise(sample, draw)
        drawn = _search(sample, fitted + excess * means, _GRID)
        floor, a, b = (np.concatenate(pair) for pair in zip(own, drawn, strict=True))
        return cls(sample.kind, floor, a, b, runs * student(sample.freedom) / NORMAL)

    def predict(self, points: Columns) -> tuple[Numbers, Numbers]:
        """Return the score at sizes, and half the 95 % interval of one more run, in logarithms."""
        size = points[AXIS][:, None]
        errors = self.floor + self.a * size**-self.b
        own = errors[:, 0]
        runs = errors[:, 1:] + self.runs * np.sqrt(variance_shape(own, self.kind))[:, None]
        score = np.clip(1 - own, 0.01, 1.0)
        ends = np.clip(1 - np.quantile(runs, _TAILS, axis=1), 0.01, 1.0)
        return score, np.max(np.abs(np.log(ends / score)), axis=0)

    def constants(self) -> dict[str, Interval]:
        """Return `floor`, `a` and `b` with their intervals."""
        return {name: _with_ends(getattr(self, name)) for name in ("floor", "a", "b")}


def _with_ends(values: Numbers) -> Interval:
    """Return the first of the values with the interval of the others."""
    low, high = np.quantile(values[1:], _TAILS)
    value = float(values[0])
    return Interval(value, min(float(low), value), max(float(high), value))


def _noise(sample: Seeds, draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Return errors drawn from the residuals of the runs: of every size's mean, and of one more run."""
    shape = np.sqrt(variance_shape(sample.error, sample.kind))
    means = np.stack(
        [
            share * draw.choice(sample.residuals, (_DRAWS, int(seeds))).mean(axis=1)
            for share, seeds in zip(shape, sample.seeds, strict=True)
        ],
        axis=1,
    )
    return means, draw.choice(sample.residuals, _DRAWS)


def _birge(sample: Seeds, fitted: Numbers) -> float:
    """Return how many times farther the means are from the law than seeds explain, at least 1."""
    freedom = len(sample.size) - 3
    squares = float((((sample.error - fitted) ** 2) / sample.variance).sum())
    return max(1.0, np.sqrt(squares / freedom)) if freedom > 0 else 1.0


def _search(sample: Seeds, errors: Numbers, exponents: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return floor, a and b of least squares for each row of errors, b among the exponents."""
    weight = 1 / sample.variance
    weight = weight / weight.sum()
    # Sizes as multiples of the smallest, so that powers stay near 1.
    power = (sample.size / sample.size[0]) ** -exponents[:, None]
    one, two = power @ weight, power**2 @ weight
    mean, product = errors @ weight, (errors * weight) @ power.T
    a = (product - mean[:, None] * one) / (two - one**2)
    floor = mean[:, None] - a * one
    a = np.where(floor < 0, product / two, a)
    floor = np.maximum(floor, 0)
    flat = a < 0
    floor, a = np.where(flat, mean[:, None], floor), np.where(flat, 0, a)
    squares = (
        floor**2 + 2 * floor * a * one + a**2 * two - 2 * (floor * mean[:, None] + a * product)
    )
    best = np.argmin(squares, axis=1)
    rows = np.arange(len(errors))
    b = exponents[best]
    return floor[rows, best], a[rows, best] * sample.size[0] ** b, b
