"""Along an axis: how each cost changes from one value to the next, all other axes fixed."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.tables.cells_table import headline_memory, headline_score

COSTS = ("step_median_s", "samples_per_s", "tokens_per_s", "total_s")


@dataclasses.dataclass(frozen=True)
class AxisSeries:
    """The cells that differ on one axis only; `fixed` has the values of the others.

    `values` has one row per value of the axis in rising order, and a column per cost (the median over all
    runs), the headline score (the mean over seeds, since repeats of one seed are no further evidence),
    `score_sd` (its standard deviation over seeds, NaN for one) and `runs`. `ratios` has the costs and the
    score, each divided by the one in the row before (NaN in the first).
    """

    axis: str
    fixed: dict[str, Any]
    values: pd.DataFrame
    ratios: pd.DataFrame


def series_along(table: pd.DataFrame, axis: str, axes: Sequence[str]) -> list[AxisSeries]:
    """Return the series along an axis in a table of cells; only cells that are `ok` count.

    Each has two or more values of the axis at one value of every other; the longest come first.
    """
    score = headline_score(table).column
    costs = [headline_memory(table), *COSTS, score]
    others = [name for name in axes if name != axis]
    cells = _cells(table[table["status"] == "ok"], [*others, axis], costs, score)
    keys = list(cells[others].itertuples(index=False, name=None))
    values = cells.set_index(axis).drop(columns=others)
    ratios = values[costs] / values[costs].shift(1)
    found = []
    # Cells are sorted by the other axes: a series is a slice.
    for key, places in itertools.groupby(range(len(keys)), key=keys.__getitem__):
        first, *rest = places
        if rest:
            own_rows = slice(first, rest[-1] + 1)
            own = ratios.iloc[own_rows].copy()
            own.iloc[0] = math.nan
            fixed = dict(zip(others, key, strict=True))
            found.append(AxisSeries(axis, fixed, values.iloc[own_rows], own))
    return sorted(found, key=lambda series: -len(series.values))


def _cells(complete: pd.DataFrame, keys: list[str], costs: list[str], score: str) -> pd.DataFrame:
    """Return one row per cell, sorted by its axes: all at once, since a grid has hundreds of series."""
    cells = complete.groupby(keys, sort=True, dropna=False)
    values = cells[costs].median().astype(float)
    seeds = complete.drop_duplicates([*keys, "seed"]).groupby(keys, sort=True, dropna=False)
    values[score] = seeds[score].mean().astype(float)
    values["score_sd"] = seeds[score].std()
    values["runs"] = cells.size()
    return values.reset_index()
