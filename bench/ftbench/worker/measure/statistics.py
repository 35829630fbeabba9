"""Statistics of step times: the end of warm-up, the confidence interval of a median, drift.

Steps follow one another on one machine, so their times are not independent. The methods here allow for noise
that is correlated over a few steps, and are tested with series whose answer is known
(`tests/unit/worker/measure/test_statistics.py`). Only numpy is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Times = Sequence[float] | npt.NDArray[np.floating[Any]]
Array = npt.NDArray[np.float64]

# Shorter series allow no statement about warm-up, or about drift: with fewer than five samples in each
# third, the medians of a steady series differ too often.
FEWEST_FOR_WARMUP = 10
FEWEST_FOR_DRIFT = 15
# Differences below this share of the median do not matter, even if they are significant.
SMALLEST_RISE = 0.01
# How many standard errors slower the samples before the cut must be. The cut is the best of n/2, so two
# standard errors would find a warm-up in most series of pure noise.
RISE_ERRORS = 4.0
# At most half of a series may be warm-up. If warm-up takes more than this share of that half, there is no steady
# state: if a series gets faster throughout, noise still keeps the cut from the very end of the half.
UNSTEADY_WARN = 0.9
# Samples are clipped to this many scaled median absolute deviations of the second half: to few for the choice
# of the cut, so that an outlier just after it does not move it; to more for the test of the rise, which
# a short series could not pass otherwise.
CUT_CLIP = 3.0
RISE_CLIP = 5.0
# Converts the median absolute deviation of normal noise to its standard deviation (1 / 0.6745).
MAD_SCALE = 1.4826
# The number of bootstrap resamples is limited by a budget of drawn samples, within these bounds.
MOST_RESAMPLES = 1000
FEWEST_RESAMPLES = 200
DRAWN_SAMPLES = 1_000_000


@dataclass(frozen=True)
class Warmup:
    """The number of leading samples that are warm-up, and a verdict on the series.

    `limit` is the latest cut allowed, half of the series. `unsteady`: the times still fell near the limit, so the
    rest may not be steady either. `too short`: fewer than FEWEST_FOR_WARMUP samples, so warm-up was not
    looked for.
    """

    samples: int
    limit: int
    verdict: Literal["steady", "unsteady", "too short"]


@dataclass(frozen=True)
class Drift:
    """The median of a series' last third less that of its first third, as a share of the latter.

    It `stands_out` if the 95 % intervals of the two medians do not overlap.
    """

    change: float
    stands_out: bool


def warmup(times: Times) -> Warmup:
    """Return the number of leading samples that are slower than the rest; 0 if noise could explain it.

    The cut minimises MSER, the squared standard error of the mean of the remaining samples (White 1997, "An
    effective truncation heuristic for bias reduction in simulation output", Simulation 69:6). Cuts up to half
    of the series are considered whose left-out samples are slower than the rest by SMALLEST_RISE and by
    RISE_ERRORS standard errors. A *faster* start is not warm-up but a drift (boost clocks that end, a machine
    that heats up), which `drift` detects.

    The times are winsorised first, so that neither one late outlier nor one in fifty moves the cut.
    """
    values = np.asarray(times, dtype=np.float64)
    if len(values) < FEWEST_FOR_WARMUP:
        return Warmup(0, 0, "too short")
    limit = len(values) // 2
    centre = float(np.median(values[limit:]))
    slower = _rises(_clipped(values, centre, RISE_CLIP), limit) >= SMALLEST_RISE * centre
    cuts = np.flatnonzero(np.concatenate(([True], slower)))
    _, variance, kept = _kept(_clipped(values, centre, CUT_CLIP), limit)
    # Without the floor, a transient without noise would never end, no matter how small its tail.
    squared_error = (variance + (SMALLEST_RISE * centre) ** 2) / kept
    cut = int(cuts[np.argmin(squared_error[cuts])])
    return Warmup(cut, limit, "unsteady" if cut > UNSTEADY_WARN * limit else "steady")


def _clipped(values: Array, centre: float, deviations: float) -> Array:
    """Return the values less the centre of their second half, clipped to `deviations` of its deviation.

    A deviation is at least SMALLEST_RISE of the centre, since coarse clocks give equal times.
    """
    offsets = values - centre
    deviation = MAD_SCALE * float(np.median(np.abs(offsets[len(values) // 2 :])))
    reach = deviations * max(deviation, SMALLEST_RISE * centre)
    return np.clip(offsets, -reach, reach)


def _kept(offsets: Array, limit: int) -> tuple[Array, Array, Array]:
    """Return the mean, variance and number of the samples that each cut from 0 to the limit keeps."""
    kept = len(offsets) - np.arange(limit + 1.0)
    sums, squares = (np.cumsum(x[::-1])[::-1][: limit + 1] for x in (offsets, offsets**2))
    mean = sums / kept
    return mean, np.maximum(squares / kept - mean**2, 0.0), kept


def _rises(offsets: Array, limit: int) -> Array:
    """Return, for each cut from 1, how much slower the left-out samples are; 0 if noise could explain it."""
    mean, variance, kept = (x[1:] for x in _kept(offsets, limit))
    left_out = np.arange(1.0, limit + 1)
    rise = np.cumsum(offsets)[:limit] / left_out - mean
    noise = variance * _memory(offsets[limit:])
    return np.where(rise > RISE_ERRORS * np.sqrt(noise * (1 / left_out + 1 / kept)), rise, 0.0)


def _memory(offsets: Array) -> float:
    """Return the factor by which autocorrelation raises the variance of a mean; 1 or more.

    It is the variance of the means of overlapping blocks, times their length, over that of the samples
    (Meketon and Schmeiser 1984, "Overlapping batch means: something for nothing?").
    """
    length = block_length(len(offsets))
    variance = float(np.var(offsets))
    if variance == 0.0:
        return 1.0
    means = np.convolve(offsets, np.full(length, 1 / length), mode="valid")
    return max(length * float(np.var(means)) / variance, 1.0)


def block_length(samples: int) -> int:
    """Return the length of a bootstrap's blocks: the cube root of the samples, at least 1.

    That order minimises the error of the variance (Hall, Horowitz and Jing 1995, "On blocking
    rules for the bootstrap with dependent data").
    """
    return max(math.ceil(round(samples ** (1 / 3), 9)), 1)


def median_interval(times: Times, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the (low, high) interval of the median, in the unit of the times; equal for equal seeds.

    Percentiles of the medians of resamples made of whole blocks of neighbours (the moving-block
    bootstrap: Kunsch 1989, "The jackknife and the bootstrap for general stationary observations").
    Drawing single samples would treat slow spells as independent, and make the interval too narrow.
    It is never narrower than the exact interval for independent samples: with few samples, the bootstrap's
    interval contains the median too seldom (82 % of the time for ten). Raises ValueError without times.
    """
    values = np.asarray(times, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("the median of no times has no interval: give at least one")
    tail = (1 - level) / 2
    low, high = np.quantile(_resampled_medians(values, seed), [tail, 1 - tail])
    rank = _median_rank(len(values), tail)
    ordered = np.sort(values)
    return min(float(low), float(ordered[rank])), max(float(high), float(ordered[-1 - rank]))


def _median_rank(samples: int, tail: float) -> int:
    """Return the rank, from 0, of the sample that the median is below with at most the probability `tail`.

    The number of samples below the median is binomial (Thompson 1936, "On confidence ranges for
    the median"); if there are too few samples for such a probability, the rank is 0, the smallest.
    """
    rank = np.arange(1, samples + 1)
    log_ways = np.concatenate(([0.0], np.cumsum(np.log((samples - rank + 1) / rank))))
    at_most = np.cumsum(np.exp(log_ways - samples * math.log(2)))
    return max(int(np.searchsorted(at_most, tail, side="right")) - 1, 0)


def _resampled_medians(values: Array, seed: int) -> Array:
    """Return the medians of moving-block resamples, each as long as the series."""
    samples, length = len(values), block_length(len(values))
    resamples = min(max(DRAWN_SAMPLES // samples, FEWEST_RESAMPLES), MOST_RESAMPLES)
    starts = np.random.default_rng(seed).integers(
        samples - length + 1, size=(resamples, math.ceil(samples / length))
    )
    drawn = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :samples]
    medians: Array = np.median(values[drawn], axis=1)
    return medians


def drift(times: Times) -> Drift | None:
    """Return the change of the median from the first third of the times to the last; None if there are too few.

    Pass times without warm-up, which would count as a drift.
    """
    values = np.asarray(times, dtype=np.float64)
    if len(values) < FEWEST_FOR_DRIFT:
        return None
    third = len(values) // 3
    first, last = values[:third], values[-third:]
    (first_low, first_high), (last_low, last_high) = map(median_interval, (first, last))
    before, after = float(np.median(first)), float(np.median(last))
    return Drift(
        change=(after - before) / before,
        stands_out=last_low > first_high or last_high < first_low,
    )
