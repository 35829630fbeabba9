"""Exponents: how fast a cost grows along one axis, from one measured value to the next.

The exponent between two cells is log(cost ratio) / log(axis ratio), so 2 ** exponent is what a doubling
costs. Its interval is Student's, from the noise of the two means: the spread over repeats and replicates
if enough cells have several runs, else the residual of the fit, which includes misfit; for a step time
never less than the runs' own intervals of their medians.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ftbench.analysis.fits.laws import Exponent, Interval, NoiseSource
from ftbench.analysis.fits.regression import NORMAL, cells_of, student

# Runs beyond the first of each cell from which their spread is known: with three, its own error is 40 %.
SPARE_RUNS = 3


@dataclasses.dataclass(frozen=True)
class Noise:
    """The relative standard deviation of one run's cost, its degrees of freedom, and its source."""

    deviation: float
    freedom: int
    source: NoiseSource


# A prediction is the same every time.
EXACT = Noise(0.0, 1, "predictions")


def noise(
    table: pd.DataFrame, cost: str, axes: Sequence[str], residual: Noise | None
) -> Noise | None:
    """Return the noise of a cost: over the runs of a cell, else `residual`; None if neither is known."""
    costs = table[cost].to_numpy(float)
    if not len(costs):
        return residual
    _, cell = cells_of([table[axis].to_numpy(float) for axis in axes])
    runs = np.bincount(cell)
    shares = costs / (np.bincount(cell, weights=costs) / runs)[cell] - 1
    spare = len(costs) - len(runs)
    if spare >= SPARE_RUNS:
        return Noise(float(np.sqrt((shares**2).sum() / spare)), spare, "repeats")
    return residual


def exponents(
    table: pd.DataFrame, cost: str, axes: Sequence[str], of: Noise
) -> tuple[Exponent, ...]:
    """Return the exponents of a cost along each of the axes, between neighbours and over doublings.

    `table` is of one group; rows without the cost are ignored.
    """
    cells = _cells(table.dropna(subset=[cost]), cost, axes, of)
    return tuple(exponent for axis in axes for exponent in _along(cells, cost, axis, axes, of))


def _cells(
    table: pd.DataFrame, cost: str, axes: Sequence[str], of: Noise
) -> list[dict[str, float]]:
    """Return one row per cell: its axes, its mean cost, and the relative variance of that mean."""
    if table.empty:
        return []
    costs = table[cost].to_numpy(float)
    own = np.zeros_like(costs)
    if cost == "step_median_s" and {"step_low_s", "step_high_s"} <= set(table):
        width = (table["step_high_s"] - table["step_low_s"]).to_numpy(float) / costs
        own = np.nan_to_num(width) / (2 * NORMAL)
    variances = np.maximum(own**2, of.deviation**2)
    cells, cell = cells_of([table[axis].to_numpy(float) for axis in axes])
    runs = np.bincount(cell)
    means = np.bincount(cell, weights=costs) / runs
    variance = np.bincount(cell, weights=variances) / runs**2
    return [
        dict(zip((*axes, "cost", "variance"), row, strict=True))
        for row in np.column_stack([cells, means, variance]).tolist()
    ]


def _along(
    cells: Sequence[Mapping[str, float]], cost: str, axis: str, axes: Sequence[str], of: Noise
) -> Iterator[Exponent]:
    others = [name for name in axes if name != axis]
    by_others: dict[tuple[Any, ...], list[Mapping[str, float]]] = {}
    for row in cells:
        by_others.setdefault(tuple(row[name] for name in others), []).append(row)
    for key, series in by_others.items():
        fixed = dict(zip(others, map(_plain, key), strict=True))
        for small, large in _steps(sorted(series, key=operator.itemgetter(axis)), axis):
            yield Exponent(
                cost=cost,
                axis=axis,
                fixed=fixed,
                start=_plain(small[axis]),
                end=_plain(large[axis]),
                exponent=_exponent(small, large, axis, of),
                source=of.source,
            )


def _steps(
    series: Sequence[Mapping[str, float]], axis: str
) -> Iterator[tuple[Mapping[str, float], Mapping[str, float]]]:
    """Yield neighbours along an axis, and any doublings that are not neighbours."""
    for place, small in enumerate(series):
        for large in series[place + 1 :]:
            if large is series[place + 1] or large[axis] == 2 * small[axis]:
                yield small, large


def _exponent(
    small: Mapping[str, float], large: Mapping[str, float], axis: str, of: Noise
) -> Interval:
    distance = np.log(large[axis] / small[axis])
    value = np.log(large["cost"] / small["cost"]) / distance
    half = student(of.freedom) * np.sqrt(small["variance"] + large["variance"]) / distance
    return Interval(float(value), float(value - half), float(value + half))


def _plain(value: float) -> float:
    """Return an int if the value is whole."""
    return int(value) if value.is_integer() else value
