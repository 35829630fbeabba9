"""Along an axis: how each cost changes from one value to the next, all other axes held."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.analysis.summary import headline_memory

COSTS = ("step_median_s", "samples_per_s", "tokens_per_s", "total_s", "eval_accuracy")


@dataclasses.dataclass(frozen=True)
class Chain:
    """The cells that differ on one axis only.

    `values` has one row a value of the axis in rising order, a column a cost (the median over all
    runs; for accuracy the mean over seeds, since repeats of one seed are no further evidence),
    `accuracy_sd` (the standard deviation over seeds, NaN for one) and `runs`. `ratios` has the
    costs, each divided by the one in the row before (NaN in the first).
    """

    axis: str
    held: dict[str, Any]
    values: pd.DataFrame
    ratios: pd.DataFrame


def chains_along(table: pd.DataFrame, axis: str, axes: Sequence[str]) -> list[Chain]:
    """Return the chains of an axis in a table of cells; only those that are `ok` count.

    A chain is two or more values of the axis at one value of every other; the longest come first.
    """
    costs = [headline_memory(table), *COSTS]
    others = [name for name in axes if name != axis]
    complete = table[table["status"] == "ok"]
    chains = []
    for key, group in complete.groupby(others, sort=True, dropna=False):
        by_value = group.groupby(axis, sort=True)
        if len(by_value) < 2:
            continue
        values = by_value[costs].median().astype(float)
        accuracy = group.drop_duplicates([axis, "seed"]).groupby(axis, sort=True)["eval_accuracy"]
        values["eval_accuracy"] = accuracy.mean().astype(float)
        values["accuracy_sd"] = accuracy.std()
        values["runs"] = by_value.size()
        held = dict(zip(others, key if isinstance(key, tuple) else (key,), strict=True))
        ratios = values[costs] / values[costs].shift(1)
        chains.append(Chain(axis, held, values, ratios))
    return sorted(chains, key=lambda chain: -len(chain.values))
