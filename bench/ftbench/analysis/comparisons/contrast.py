"""Contrast: how far cells differ, with an interval: in a score a difference, in a cost a ratio.

Two things move a measured score: the seed of training, and the examples it was evaluated on. The first is
the spread over seeds, the second the standard error that comes with the score. Cells of one run are evaluated
on the same examples, so their errors go together, and a difference is known better than is said here: the
error is on the side of not distinguishing cells. A cost moves from run to run by a share of itself, so its
spread is taken from logarithms.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from scipy.special import ndtri, stdtrit

from ftbench.analysis.fits.laws import CONFIDENCE, Interval
from ftbench.analysis.tables.cells_table import SCORE_ERROR

Verdict = Literal["more", "less", "not distinguishable", "not known"]
Point = tuple[Hashable, ...]
Run = Mapping[Hashable, Any]  # one row of a table of cells

# What tells runs of one cell apart if they were measured on several machines, or with other packages.
ENVIRONMENT = "environment_id"
# From so many runs on a cell's spread is its own; with fewer it is that of all cells together.
OWN_SPREAD = 3
# From so many ratios on their median has an interval.
MEDIAN_FROM = 6
# Degrees of freedom from which Student's t is as good as normal.
NORMAL_FROM = 1e6
_QUANTILE = (1 + CONFIDENCE) / 2


@dataclasses.dataclass(frozen=True)
class MeanEstimate:
    """A mean, its variance, and the degrees of freedom behind the variance.

    The variance is None if nothing says how far another run would lie; one that is `pooled` is of all
    cells together, so another's is no further evidence.
    """

    value: float
    variance: float | None
    df: float = math.inf
    pooled: bool = False

    @property
    def interval(self) -> Interval | None:
        """Return the 95 % interval by Student's t; None if the variance is not known."""
        if self.variance is None:
            return None
        half = float(stdtrit(min(self.df, NORMAL_FROM), _QUANTILE)) * math.sqrt(self.variance)
        return Interval(self.value, self.value - half, self.value + half)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A difference or a ratio, its 95 % interval, and the verdict that it allows.

    The verdict is `not distinguishable` if the interval holds "the same", `not known` if there is none.
    """

    value: float
    interval: Interval | None
    verdict: Verdict


def contrast(value: float, interval: Interval | None, *, same: float) -> Contrast:
    """Return a contrast with its verdict; `same` is 0 for a difference and 1 for a ratio."""
    if interval is None:
        return Contrast(value, None, "not known")
    if interval.low > same:
        return Contrast(value, interval, "more")
    return Contrast(value, interval, "less" if interval.high < same else "not distinguishable")


def combined(weights: Sequence[float], parts: Sequence[MeanEstimate]) -> MeanEstimate:
    """Return the weighted sum of independent estimates (Welch-Satterthwaite degrees of freedom).

    Variances that were pooled are one variance, and count once.
    """
    value = sum(w * part.value for w, part in zip(weights, parts, strict=True))
    if any(part.variance is None for part in parts):
        return MeanEstimate(value, None)
    shares = [w * w * (part.variance or 0.0) for w, part in zip(weights, parts, strict=True)]
    own = [(s, part.df) for s, part in zip(shares, parts, strict=True) if not part.pooled]
    pool = [(s, part.df) for s, part in zip(shares, parts, strict=True) if part.pooled]
    if pool:
        own.append((sum(share for share, _ in pool), min(df for _, df in pool)))
    lost = sum(share**2 / df for share, df in own)
    variance = sum(shares)
    df = variance**2 / lost if lost > 0 else math.inf
    return MeanEstimate(value, variance, df, pooled=bool(pool))


def difference(a: MeanEstimate, b: MeanEstimate) -> Contrast:
    """Return a less b."""
    found = combined((1.0, -1.0), (a, b))
    return contrast(found.value, found.interval, same=0.0)


def ratio(a: MeanEstimate, b: MeanEstimate, *, doublings: float = 1.0) -> Contrast:
    """Return a / b of estimates of logarithms; over several doublings, the ratio of one."""
    return _of_logarithm(combined((1 / doublings, -1 / doublings), (a, b)))


def mean_ratio(pairs: Sequence[tuple[MeanEstimate, MeanEstimate]]) -> Contrast:
    """Return the geometric mean of a / b over pairs of estimates of logarithms.

    The interval is of these pairs: how much another one would differ from them is not in it.
    """
    count = len(pairs)
    ends = [end for pair in pairs for end in pair]
    return _of_logarithm(combined((1 / count, -1 / count) * count, ends))


def _of_logarithm(found: MeanEstimate) -> Contrast:
    """Return the ratio whose logarithm is estimated."""
    interval = found.interval
    value = math.exp(found.value)
    if interval is not None:
        interval = Interval(value, math.exp(interval.low), math.exp(interval.high))
    return contrast(value, interval, same=1.0)


def median_ratio(ratios: Sequence[float]) -> Contrast:
    """Return the median of ratios, with the interval between two of them that holds it in 95 of 100 cases.

    The interval is of order statistics (the sign test's), whatever the distribution; fewer than
    MEDIAN_FROM ratios have none.
    """
    ordered = sorted(ratios)
    count = len(ordered)
    value = statistics.median(ordered)
    tail, outside = 0.0, 0
    for rank in range(count // 2):
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        outside = rank + 1
    if not outside:
        return contrast(value, None, same=1.0)
    return contrast(value, Interval(value, ordered[outside - 1], ordered[-outside]), same=1.0)


def separating_axes(table: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the axes of a table, and the environment after them if its runs are of several.

    Times and memory are those of a machine and its packages: runs of two are no replicates of one point.
    """
    several = ENVIRONMENT not in axes and table[ENVIRONMENT].nunique() > 1
    return [*axes, *([ENVIRONMENT] if several else [])]


def points(table: pd.DataFrame, axes: Sequence[str]) -> dict[Point, list[Run]]:
    """Return the runs of each point of the axes, by column; only those that are `ok` count."""
    found: dict[Point, list[Run]] = {}
    for run in table[table["status"] == "ok"].to_dict("records"):
        found.setdefault(tuple(run[axis] for axis in axes), []).append(run)
    return found


def known(runs: Iterable[Run], column: str) -> list[float]:
    """Return the figures of a column that are there."""
    return [float(run[column]) for run in runs if pd.notna(run[column])]


def by_seed(runs: Iterable[Run], column: str) -> dict[int, float]:
    """Return the score of each seed that has one: repeats of a seed are no further evidence."""
    found: dict[int, float] = {}
    for run in runs:
        if pd.notna(run[column]):
            found.setdefault(int(run["seed"]), float(run[column]))
    return found


@dataclasses.dataclass(frozen=True)
class MeanScore:
    """The mean score of a cell over its seeds, and the variance that its evaluation examples give it.

    The second is None if it is not known.
    """

    of_seeds: MeanEstimate
    evaluation: float | None

    @property
    def value(self) -> float:
        """Return the mean."""
        return self.of_seeds.value

    @property
    def estimate(self) -> MeanEstimate:
        """Return the mean with both variances.

        If no cell has two seeds, that of the seeds is left out: a difference may still be the seed's.
        """
        return _evaluated(self.of_seeds, self.evaluation)


def mean_scores(runs: Mapping[Point, Sequence[Run]], column: str) -> dict[Point, MeanScore]:
    """Return the mean score over seeds of every point that has one."""
    samples = {point: list(by_seed(group, column).values()) for point, group in runs.items()}
    return {
        point: MeanScore(of_seeds, _evaluation_variance(runs[point], column))
        for point, of_seeds in _estimates(samples).items()
    }


def is_more(found: Contrast) -> bool:
    """Return whether a difference is above 0 by more than noise; by its value if the noise is not known."""
    return found.verdict == "more" or (found.verdict == "not known" and found.value > 0)


def _evaluation_variance(runs: Sequence[Run], column: str) -> float | None:
    """Return the variance from the evaluation examples: those of all seeds are the same examples."""
    errors = known((run for run in runs if pd.notna(run[column])), SCORE_ERROR)
    return statistics.fmean(error**2 for error in errors) if errors else None


def mean_difference(pairs: Sequence[tuple[MeanScore, MeanScore]]) -> Contrast | None:
    """Return the mean over pairs of the first less the second; None for no pairs.

    All pairs have the same evaluation examples, so the error of these stays as it is, however many pairs
    there are.
    """
    if not pairs:
        return None
    count = len(pairs)
    ends = [end for pair in pairs for end in pair]
    found = combined((1 / count, -1 / count) * count, [end.of_seeds for end in ends])
    variances = [end.evaluation for end in ends]
    if None not in variances:
        evaluation = sum(variance or 0.0 for variance in variances) / count
        seeds = [dataclasses.replace(e.of_seeds, variance=e.of_seeds.variance or 0.0) for e in ends]
        found = _evaluated(combined((1 / count, -1 / count) * count, seeds), evaluation)
    return contrast(found.value, found.interval, same=0.0)


def _evaluated(of_seeds: MeanEstimate, variance: float | None) -> MeanEstimate:
    """Return an estimate with the evaluation's variance, if it is known, beside that of the seeds."""
    if variance is None:
        return of_seeds
    known = dataclasses.replace(of_seeds, variance=of_seeds.variance or 0.0)
    return combined((1.0, 1.0), (known, MeanEstimate(0.0, variance)))


def log_costs(runs: Mapping[Point, Sequence[Run]], cost: str) -> dict[Point, MeanEstimate]:
    """Return the mean logarithm of a cost over all runs of every point that has it.

    A single step time has the spread that its own steps show, if no cell was run twice: that is less than
    what another run would show. Another cost that was read once has no variance.
    """
    samples = {
        point: [math.log(value) for value in known(group, cost) if value > 0]
        for point, group in runs.items()
    }
    found = _estimates(samples)
    if cost != "step_median_s":
        return found
    return {
        point: dataclasses.replace(one, variance=_bootstrapped(runs[point]))
        if one.variance is None
        else one
        for point, one in found.items()
    }


@dataclasses.dataclass(frozen=True)
class PointFigures:
    """The figures of every cell: its score over its seeds, and the logarithm of each cost."""

    scores: Mapping[Point, MeanScore]
    costs: Mapping[str, Mapping[Point, MeanEstimate]]

    @classmethod
    def of(
        cls, runs: Mapping[Point, Sequence[Run]], costs: Iterable[str], score: str
    ) -> PointFigures:
        """Return the score and these costs of each point, from its runs, by their columns."""
        return cls(mean_scores(runs, score), {cost: log_costs(runs, cost) for cost in costs})

    def gain(self, pairs: Sequence[tuple[Point, Point]]) -> Contrast | None:
        """Return the mean difference in score over the pairs that have one."""
        ends = [
            (self.scores[one], self.scores[other])
            for one, other in pairs
            if one in self.scores and other in self.scores
        ]
        return mean_difference(ends)

    def known(
        self, pairs: Sequence[tuple[Point, Point]]
    ) -> dict[str, list[tuple[MeanEstimate, MeanEstimate]]]:
        """Return, for each cost that any pair has, the logarithms of the pairs that have it."""
        found = {
            cost: [(of[one], of[other]) for one, other in pairs if one in of and other in of]
            for cost, of in self.costs.items()
        }
        return {cost: ends for cost, ends in found.items() if ends}


def _estimates(samples: Mapping[Point, Sequence[float]]) -> dict[Point, MeanEstimate]:
    """Return the mean of every sample that is not empty; few runs have the spread of all samples."""
    squares, df = 0.0, 0
    for values in samples.values():
        if len(values) > 1:
            squares += statistics.variance(values) * (len(values) - 1)
            df += len(values) - 1
    found = {}
    for point, values in samples.items():
        count = len(values)
        if not count:
            continue
        mean = statistics.fmean(values)
        if count >= OWN_SPREAD:
            found[point] = MeanEstimate(mean, statistics.variance(values) / count, count - 1)
        else:
            pooled = squares / df / count if df else None
            found[point] = MeanEstimate(mean, pooled, df or math.inf, pooled=pooled is not None)
    return found


def _bootstrapped(runs: Sequence[Run]) -> float | None:
    """Return the variance of the logarithm of a median step time, from its bootstrap interval."""
    ends = [known(runs[:1], name) for name in ("step_low_s", "step_high_s")]
    if not all(ends):
        return None
    width = math.log(ends[1][0] / ends[0][0])
    return float((width / (2 * float(ndtri(_QUANTILE)))) ** 2)
