"""Settings: the cost of one value of a setting over another, in cells that agree in all else.

Pure, from a table of cells. A choice is an axis whose values are words or yes and no (attention,
padding, malloc, checkpointing, bf16, the optimizer), but for `method`, which has an analysis of its own.
If some cells leave a setting to its default, the table has its numbers as texts: they are no words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    ENVIRONMENT,
    Contrast,
    Point,
    PointFigures,
    mean_ratio,
    points,
)
from ftbench.analysis.comparisons.methods import AXIS as METHOD
from ftbench.analysis.tables.cells_table import (
    ABSENT_SETTING,
    UNUSED_SETTING,
    headline_memory,
    headline_score,
)


@dataclasses.dataclass(frozen=True)
class ChoicePair:
    """Two cells that agree in all of `fixed`; `ratios` has, by cost, the chosen one over the other.

    `gain` is the score of the chosen one less the other's.
    """

    fixed: Mapping[str, Any]
    ratios: Mapping[str, Contrast]
    gain: Contrast | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """One value of a setting beside another, pair by pair, and the geometric mean over all pairs.

    Pairs are in the order of the axes, each by the size of its values.
    """

    axis: str
    chosen: Any
    other: Any
    pairs: tuple[ChoicePair, ...]
    ratios: Mapping[str, Contrast]
    gain: Contrast | None


def choices(table: pd.DataFrame, axes: Sequence[str]) -> list[Choice]:
    """Return a comparison for each value of each choice beside the default, or the first by name.

    Costs are `total_s`, `step_median_s`, the memory that stands for a run, and peak RSS. A value that
    shares no cell with the one it is beside has none.
    """
    runs = points(table, axes)
    costs = dict.fromkeys(("total_s", "step_median_s", headline_memory(table), "peak_rss_bytes"))
    figures = PointFigures.of(runs, costs, headline_score(table).column)
    ordered = sorted(runs, key=_in_order)
    found = []
    for place, axis in enumerate(axes):
        values = {point[place] for point in runs}
        if not _is_choice(axis, values):
            continue
        other, *rest = sorted(values, key=lambda value: (value != ABSENT_SETTING, repr(value)))
        for value in rest:
            matched = [
                (point, swapped)
                for point in ordered
                if point[place] == value
                and (swapped := (*point[:place], other, *point[place + 1 :])) in runs
            ]
            if matched:
                found.append(_choice(axis, (value, other), matched, axes, figures))
    return found


def _in_order(point: Point) -> list[tuple[str, float]]:
    """Return a key that sorts points by their values: numbers by size, the rest by their text."""
    numbers = map(_number, point)
    return [
        (str(value), 0.0) if number is None else ("", number)
        for value, number in zip(point, numbers, strict=True)
    ]


def _is_choice(axis: str, values: Iterable[Any]) -> bool:
    if axis in (METHOD, ENVIRONMENT):
        return False
    named = [value for value in values if value not in (ABSENT_SETTING, UNUSED_SETTING)]
    return bool(named) and all(isinstance(v, bool) or _number(v) is None for v in named)


def _number(value: Any) -> float | None:
    """Return the number that a value is or that its text says; None for words."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _choice(
    axis: str,
    values: tuple[Any, Any],
    matched: Sequence[tuple[Point, Point]],
    axes: Sequence[str],
    figures: PointFigures,
) -> Choice:
    def ratios(ends: Sequence[tuple[Point, Point]]) -> dict[str, Contrast]:
        return {cost: mean_ratio(logs) for cost, logs in figures.known(ends).items()}

    pairs = tuple(
        ChoicePair(
            fixed={name: value for name, value in zip(axes, pair[0], strict=True) if name != axis},
            ratios=ratios([pair]),
            gain=figures.gain([pair]),
        )
        for pair in matched
    )
    return Choice(axis, *values, pairs, ratios(matched), figures.gain(matched))
