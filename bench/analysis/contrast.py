"""Contrast: how far cells differ, with an interval: in accuracy a difference, in a cost a ratio.

Two things move a measured accuracy: the seed of training, and which documents it was evaluated on. The
first is the spread over seeds, the second the binomial error of so many documents. Cells of one run are
evaluated on the same documents, so their errors go together, and a difference is known better than is
said here: the error is on the side of not telling cells apart. A cost moves from run to run by a share
of itself, so its spread is taken from logarithms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal

import pandas as pd
from scipy.special import ndtri, stdtrit

from bench.analysis.laws import CONFIDENCE, Interval

Verdict = Literal["more", "less", "not told apart", "not known"]
Point = tuple[Hashable, ...]

# From so many runs on a cell's spread is its own; with fewer it is that of all cells together.
OWN_SPREAD = 3
# Where Student's t is as good as normal.
_MANY = 1e6
# Documents that are added to both outcomes, half each: an accuracy of 1.0 is not certain either.
# Agresti and Coull, "Approximate is better than exact" (1998).
_PLUS = 4
_QUANTILE = (1 + CONFIDENCE) / 2


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, its variance, and the degrees of freedom behind the variance.

    The variance is None where nothing says how far another run would lie.
    """

    value: float
    variance: float | None
    df: float = math.inf

    @property
    def interval(self) -> Interval | None:
        """Return the 95 % interval by Student's t; None where the variance is not known."""
        if self.variance is None:
            return None
        half = float(stdtrit(min(self.df, _MANY), _QUANTILE)) * math.sqrt(self.variance)
        return Interval(self.value, self.value - half, self.value + half)


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A difference or a ratio, its 95 % interval, and what that allows to be said.

    The verdict is `not told apart` where the interval holds "the same", `not known` where there is none.
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
    return Contrast(value, interval, "less" if interval.high < same else "not told apart")


def combined(weights: Sequence[float], parts: Sequence[Estimate]) -> Estimate:
    """Return the weighted sum of independent estimates (Welch-Satterthwaite degrees of freedom)."""
    value = sum(w * part.value for w, part in zip(weights, parts, strict=True))
    if any(part.variance is None for part in parts):
        return Estimate(value, None)
    shares = [w * w * (part.variance or 0.0) for w, part in zip(weights, parts, strict=True)]
    lost = sum(share**2 / part.df for share, part in zip(shares, parts, strict=True))
    variance = sum(shares)
    return Estimate(value, variance, variance**2 / lost if lost > 0 else math.inf)


def difference(a: Estimate, b: Estimate) -> Contrast:
    """Return a less b."""
    found = combined((1.0, -1.0), (a, b))
    return contrast(found.value, found.interval, same=0.0)


def ratio(a: Estimate, b: Estimate, *, doublings: float = 1.0) -> Contrast:
    """Return a / b of estimates of logarithms; over several doublings, the ratio of one."""
    found = combined((1 / doublings, -1 / doublings), (a, b))
    interval = found.interval
    value = math.exp(found.value)
    if interval is not None:
        interval = Interval(value, math.exp(interval.low), math.exp(interval.high))
    return contrast(value, interval, same=1.0)


def median_ratio(ratios: Sequence[float]) -> Contrast:
    """Return the median of ratios, with the interval between two of them that holds it in 95 of 100 cases.

    The interval is of order statistics (the sign test's), whatever the distribution; fewer than six
    ratios have none.
    """
    ordered = sorted(ratios)
    count = len(ordered)
    value = float(pd.Series(ordered, dtype=float).median())
    tail, outside = 0.0, 0
    for rank in range(count // 2):
        tail += math.comb(count, rank) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        outside = rank + 1
    if not outside:
        return contrast(value, None, same=1.0)
    return contrast(value, Interval(value, ordered[outside - 1], ordered[-outside]), same=1.0)


def points(table: pd.DataFrame, axes: Sequence[str]) -> dict[Point, pd.DataFrame]:
    """Return the runs of each point of the axes; only those that are `ok` count."""
    complete = table[table["status"] == "ok"]
    groups = complete.groupby(list(axes), sort=True, dropna=False)
    return {key if isinstance(key, tuple) else (key,): runs for key, runs in groups}


def accuracies(
    runs: Mapping[Point, pd.DataFrame], eval_size: int | None = None
) -> dict[Point, Estimate]:
    """Return the mean accuracy over seeds of every point that has one.

    Its variance is that of the seeds, and that of `eval_size` documents where it is given. Then, if no
    point has two seeds, the first is left out: a difference that is told apart may still be the seed's.
    """
    samples = {}
    for point, group in runs.items():
        scores = group.dropna(subset=["eval_accuracy"]).drop_duplicates("seed")["eval_accuracy"]
        if len(scores):
            samples[point] = scores.astype(float)
    pooled = _pooled(samples.values())
    found = {
        point: Estimate(float(scores.mean()), *_spread(scores, pooled))
        for point, scores in samples.items()
    }
    if eval_size is None:
        return found
    return {
        point: _evaluated(of_seeds, _binomial(of_seeds.value, eval_size))
        for point, of_seeds in found.items()
    }


def mean_difference(
    pairs: Sequence[tuple[Estimate, Estimate]], eval_size: int | None = None
) -> Contrast | None:
    """Return the mean over pairs of the first less the second; None for no pairs.

    The estimates are of `accuracies` without an `eval_size`: all pairs have the same evaluation documents,
    so the error of these stays as it is, however many pairs there are.
    """
    if not pairs:
        return None
    count = len(pairs)
    ends = [end for pair in pairs for end in pair]
    if eval_size is None:
        found = combined((1 / count, -1 / count) * count, ends)
        return contrast(found.value, found.interval, same=0.0)
    known = [dataclasses.replace(end, variance=end.variance or 0.0) for end in ends]
    found = combined((1 / count, -1 / count) * count, known)
    sides = (sum(end.value for end in ends[start::2]) / count for start in (0, 1))
    found = _evaluated(found, sum(_binomial(side, eval_size) for side in sides))
    return contrast(found.value, found.interval, same=0.0)


def _evaluated(of_seeds: Estimate, variance: float) -> Estimate:
    """Return an estimate with the evaluation's variance beside that of the seeds, where it is known."""
    known = dataclasses.replace(of_seeds, variance=of_seeds.variance or 0.0)
    return combined((1.0, 1.0), (known, Estimate(0.0, variance)))


def log_costs(runs: Mapping[Point, pd.DataFrame], cost: str) -> dict[Point, Estimate]:
    """Return the mean logarithm of a cost over all runs of every point that has it.

    A single step time has the spread that its own steps show, if no cell was run twice: that is less than
    what another run would show. Another cost that was read once has no variance.
    """
    samples = {}
    for point, group in runs.items():
        values = group[cost].dropna().astype(float)
        values = values[values > 0]
        if len(values):
            samples[point] = values.map(math.log)
    pooled = _pooled(samples.values())
    found = {}
    for point, values in samples.items():
        variance, df = _spread(values, pooled)
        if variance is None and cost == "step_median_s":
            variance = _bootstrapped(runs[point])
        found[point] = Estimate(float(values.mean()), variance, df)
    return found


def _pooled(samples: Iterable[pd.Series[float]]) -> tuple[float, int] | None:
    """Return (variance of one run, degrees of freedom) within all samples; None where all are single."""
    squares, df = 0.0, 0
    for values in samples:
        if len(values) > 1:
            squares += float(values.var()) * (len(values) - 1)
            df += len(values) - 1
    return (squares / df, df) if df else None


def _spread(
    values: pd.Series[float], pooled: tuple[float, int] | None
) -> tuple[float | None, float]:
    """Return (variance of the mean, degrees of freedom) of one point's runs."""
    count = len(values)
    if count >= OWN_SPREAD:
        return float(values.var()) / count, count - 1
    return (pooled[0] / count, pooled[1]) if pooled else (None, math.inf)


def _binomial(share: float, documents: int) -> float:
    """Return the variance of a share of so many documents."""
    near = (share * documents + _PLUS / 2) / (documents + _PLUS)
    return near * (1 - near) / documents


def _bootstrapped(runs: pd.DataFrame) -> float | None:
    """Return the variance of the logarithm of a median step time, from its bootstrap interval."""
    known = runs.dropna(subset=["step_low_s", "step_high_s"])
    if known.empty:
        return None
    one = known.iloc[0]
    width = math.log(one["step_high_s"] / one["step_low_s"])
    return float((width / (2 * float(ndtri(_QUANTILE)))) ** 2)
