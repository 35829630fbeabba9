"""Methods: the cost of full fine-tuning over LoRA or the head alone, and its gain in score.

Pure, from a table of cells with an axis `method`. Cells are paired that differ in their method only, but
for the learning rate: each method needs one of its own, and both are said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    MEDIAN_FROM,
    Contrast,
    MeanEstimate,
    MeanScore,
    Point,
    PointFigures,
    mean_ratio,
    median_ratio,
    points,
    ratio,
)
from ftbench.analysis.comparisons.guessing import above_guessing
from ftbench.analysis.tables.cells_table import headline_memory, headline_score

AXIS = "method"
FULL = "full"
RATE = "learning_rate"
OWN_SETTINGS = "lora."  # how the axes of one method's own settings begin
Averaged = Literal["mean", "median"]


@dataclasses.dataclass(frozen=True)
class MethodPair:
    """Full fine-tuning beside another method in cells that agree in all of `fixed`.

    `ratios` has, by cost, full divided by the other; `gain` is the score of full less the other's, None if
    either has none, or is no better than guessing. The rates are None if the learning rate is no axis: both have
    the same.
    """

    fixed: Mapping[str, Any]
    full_rate: Any
    other_rate: Any
    ratios: Mapping[str, Contrast]
    gain: Contrast | None


@dataclasses.dataclass(frozen=True)
class MethodComparison:
    """Full fine-tuning beside one other method, pair by pair, and over all pairs.

    `own` has the settings that only the other method has. `ratios` has the geometric mean or the median of
    the pairs' ratios, as `averaged` says, and `gain` is the mean of their differences in score. `guessing` is the
    number of pairs without a gain because one of the two scores is no better than guessing.
    """

    method: str
    own: Mapping[str, Any]
    pairs: tuple[MethodPair, ...]
    ratios: Mapping[str, Contrast]
    averaged: Averaged
    gain: Contrast | None
    guessing: int = 0


def method_comparison(table: pd.DataFrame, axes: Sequence[str]) -> list[MethodComparison]:
    """Return a comparison for every method beside `full`, by its name; empty if there is no pair.

    Costs are `total_s`, `step_median_s` and the memory that stands for a run. If a method was run
    with several learning rates at the same settings, the one with the best score stands for it: its score is
    then slightly optimistic.
    """
    if AXIS not in axes or not table[AXIS].eq(FULL).any():
        return []
    costs = ("total_s", "step_median_s", headline_memory(table))
    runs = points(table, axes)
    kind = headline_score(table)
    figures = PointFigures.of(runs, costs, kind.column)
    learned = above_guessing(runs, kind)
    figures = dataclasses.replace(
        figures, scores={point: mean for point, mean in figures.scores.items() if learned[point]}
    )
    guessing = {point for point, above in learned.items() if not above}
    variants = _variants(list(runs), axes, figures.scores)
    full = variants.pop((FULL, ()), {})
    found = []
    for (method, own), cells in sorted(variants.items(), key=lambda one: repr(one[0])):
        matched = [(fixed, full[fixed], point) for fixed, point in cells.items() if fixed in full]
        if matched:
            compared = _comparison(method, dict(own), matched, axes, figures)
            unlearned = sum(full in guessing or other in guessing for _, full, other in matched)
            found.append(dataclasses.replace(compared, guessing=unlearned))
    return found


# Names and values that two methods' cells share.
_Shared = tuple[tuple[str, Hashable], ...]


def _variants(
    cells: Sequence[Point], axes: Sequence[str], scores: Mapping[Point, MeanScore]
) -> dict[tuple[str, _Shared], dict[_Shared, Point]]:
    """Return the cells of every method and its own settings, by what they share with other methods."""
    found: dict[tuple[str, _Shared], dict[_Shared, Point]] = {}
    for cell in cells:
        named = dict(zip(axes, cell, strict=True))
        method = str(named.pop(AXIS))
        named.pop(RATE, None)
        own = tuple((k, v) for k, v in named.items() if k.startswith(OWN_SETTINGS))
        fixed = tuple((k, v) for k, v in named.items() if not k.startswith(OWN_SETTINGS))
        of = found.setdefault((method, () if method == FULL else own), {})
        best = of.get(fixed)
        if best is None or _value(cell, scores) > _value(best, scores):
            of[fixed] = cell
    return found


def _value(cell: Point, scores: Mapping[Point, MeanScore]) -> float:
    return scores[cell].value if cell in scores else -math.inf


def _comparison(
    method: str,
    own: Mapping[str, Any],
    matched: Sequence[tuple[_Shared, Point, Point]],
    axes: Sequence[str],
    figures: PointFigures,
) -> MethodComparison:
    pairs = tuple(
        MethodPair(
            fixed=dict(fixed),
            full_rate=_rate(full, axes),
            other_rate=_rate(other, axes),
            ratios={
                cost: mean_ratio(ends) for cost, ends in figures.known([(full, other)]).items()
            },
            gain=figures.gain([(full, other)]),
        )
        for fixed, full, other in matched
    )
    known = figures.known([(full, other) for _, full, other in matched])
    # A median of few pairs has no interval, their mean has one if runs were repeated.
    few = any(len(ends) < MEDIAN_FROM for ends in known.values())
    return MethodComparison(
        method=method,
        own=own,
        pairs=pairs,
        ratios={cost: mean_ratio(ends) if few else _median(ends) for cost, ends in known.items()},
        averaged="mean" if few else "median",
        gain=figures.gain([(full, other) for _, full, other in matched]),
    )


def _rate(cell: Point, axes: Sequence[str]) -> Any:
    return dict(zip(axes, cell, strict=True)).get(RATE)


def _median(pairs: Sequence[tuple[MeanEstimate, MeanEstimate]]) -> Contrast:
    """Return the median of the pairs' ratios."""
    return median_ratio([ratio(full, other).value for full, other in pairs])
