"""Pareto: a score against cost: which cells are worth their cost, and which doubling to pay for next.

Pure, from a table of cells (`ftbench.analysis.tables.cells_table.cells_table`). A cell is a point of the axes; its
score is the headline score's mean over seeds (higher is better in each of those), its cost the median over
all runs. Cells without either are left out.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    Contrast,
    MeanEstimate,
    Point,
    Run,
    by_seed,
    combined,
    contrast,
    difference,
    is_more,
    known,
    log_costs,
    mean_scores,
    points,
    ratio,
)
from ftbench.analysis.comparisons.guessing import GUESSING, above_guessing
from ftbench.analysis.tables.axis_series import series_along
from ftbench.analysis.tables.cells_table import headline_score
from ftbench.base.units import SECONDS_PER_HOUR
from ftbench.plan.scores import ScoreKind

FIGURES = (
    "runs",
    "seeds",
    "score",
    "score_low",
    "score_high",
    "cost",
    "standing",
    "lead",
    "lead_low",
    "lead_high",
)
# What there can be twice as much of: the axes that are bought.
BOUGHT = ("train_size", "max_length", "per_device_train_batch_size", "num_train_epochs")
# Distances between levels of a score, the first that gives no more than this many.
_STEPS = (0.01, 0.02, 0.05, 0.1)
_LEVELS = 6
# Above 12.7, the largest quantile of Student's t that intervals use (one degree of freedom).
_FAR = 13.0


def money(seconds: float, usd_per_hour: float) -> float:
    """Return the price of a time at an hourly price, in USD: its front is that of time."""
    return seconds * usd_per_hour / SECONDS_PER_HOUR


def standings(table: pd.DataFrame, cost: str, axes: Sequence[str]) -> pd.DataFrame:
    """Return every cell with its standing, the cheapest first: the axes, then FIGURES.

    `front`: worth its cost, since its score is above that of every cheaper cell by more than noise; the cheapest
    has no cheaper cell to beat. `lead` is over the cheaper cell that is nearest to it, in score and noise.
    `no better than guessing`: the score is within noise of a model that does not read the text; such a cell is
    compared with no other. `dominated`: a cell that costs no more has a higher score, and is better by more
    than noise in one of the two. `not distinguishable`: the rest, which noise alone may keep from the front.
    Figures whose noise is not known (a cost that was read once) are taken as they are.
    """
    runs = points(table, axes)
    kind = headline_score(table)
    scores, costs = _scores(runs, kind), log_costs(runs, cost)
    learned = above_guessing(runs, kind)
    rows = [
        (point, _row(point, axes, runs[point], score, kind) | {"cost": _cost(runs[point], cost)})
        for point, score in scores.items()
        if point in costs
    ]
    rows.sort(key=lambda one: (one[1]["cost"], -one[1]["score"]))
    cheaper: list[Point] = []
    highest: list[Point] = []  # of the cheaper ones, those with a higher score than all before them
    for point, row in rows:
        if not learned[point]:
            row["standing"] = GUESSING
            continue
        score = scores[point]
        rising = not highest or score.value > scores[highest[-1]].value
        lead = _lead_over(score, [scores[other] for other in (cheaper if rising else highest[-1:])])
        if lead is None or is_more(lead):
            row["standing"] = "front"
        else:
            better = (other for other in highest if scores[other].value >= score.value)
            dominated = any(_is_worse(point, other, scores, costs) for other in better)
            row["standing"] = "dominated" if dominated else "not distinguishable"
        if row["standing"] != "dominated":
            row |= _lead(lead)
        cheaper.append(point)
        if rising:
            highest.append(point)
    return pd.DataFrame([row for _, row in rows], columns=[*axes, *FIGURES])


def _lead_over(score: MeanEstimate, others: Sequence[MeanEstimate]) -> Contrast | None:
    """Return the lead over the one of the others that is nearest, in score and noise; None without any."""
    if not others:
        return None
    near = [other for other in others if not _far_above(score, other)]
    return min(
        (difference(score, other) for other in near or [max(others, key=lambda one: one.value)]),
        key=_least,
    )


def _far_above(score: MeanEstimate, other: MeanEstimate) -> bool:
    """Return whether a lead is above 0 whatever the degrees of freedom: it saves the search for its interval."""
    noise = (score.variance or 0.0) + (other.variance or 0.0)
    return score.value - other.value > _FAR * math.sqrt(noise)


def _least(lead: Contrast) -> float:
    """Return the least that a lead may be: the low end of its interval, or its value without one."""
    return lead.value if lead.interval is None else lead.interval.low


def _scores(runs: Mapping[Point, Sequence[Run]], kind: ScoreKind) -> dict[Point, MeanEstimate]:
    return {point: mean.estimate for point, mean in mean_scores(runs, kind.column).items()}


def _row(
    point: Point, axes: Sequence[str], runs: Sequence[Run], score: MeanEstimate, kind: ScoreKind
) -> dict[str, Any]:
    ends, (least, most) = score.interval, kind.bounds
    row: dict[str, Any] = dict(zip(axes, point, strict=True))
    seeds = len(by_seed(runs, kind.column))
    row |= {"runs": len(runs), "seeds": seeds, "score": score.value}
    if ends is not None:
        row |= {"score_low": max(ends.low, least), "score_high": min(ends.high, most)}
    return row


def _cost(runs: Sequence[Run], cost: str) -> float:
    return statistics.median(known(runs, cost))


def _lead(lead: Contrast | None) -> dict[str, float]:
    if lead is None:
        return {}
    if lead.interval is None:
        return {"lead": lead.value}
    return {"lead": lead.value, "lead_low": lead.interval.low, "lead_high": lead.interval.high}


def _is_worse(
    cell: Point,
    other: Point,
    scores: Mapping[Point, MeanEstimate],
    costs: Mapping[Point, MeanEstimate],
) -> bool:
    """Return whether a cell that is behind another is so by more than noise in either figure."""
    if difference(scores[other], scores[cell]).verdict == "more":
        return True
    dearer = ratio(costs[cell], costs[other])
    return dearer.verdict == "more" or (dearer.verdict == "not known" and dearer.value > 1)


def score_levels(cells: pd.DataFrame) -> list[float]:
    """Return round scores between the least and the most that the front reaches."""
    if cells.empty:
        return []
    front = cells[cells["standing"] == "front"]["score"]
    if front.empty:
        return []
    low, high = float(front.min()), float(front.max())
    for step in _STEPS:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < _LEVELS:
            break
    return [round(n * step, 2) for n in range(first, last + 1)]


def cheapest_for(cells: pd.DataFrame, levels: Iterable[float]) -> pd.DataFrame:
    """Return, for every level of a score, the cheapest cell of `standings` whose mean reaches it.

    `level` and `sure` come first: whether the lower end of the score's interval reaches it as well. A
    level that no cell reaches has no other figure.
    """
    learned = cells[cells["standing"] != GUESSING]
    rows: list[dict[Hashable, Any]] = []
    for level in levels:
        reached = learned[learned["score"] >= level - 1e-9]
        row: dict[Hashable, Any] = {"level": level, "sure": False}
        if len(reached):
            row |= reached.sort_values("cost", kind="stable").iloc[0].to_dict()
            row["sure"] = bool(row["score_low"] >= level)
        rows.append(row)
    return pd.DataFrame(rows, columns=["level", "sure", *cells.columns])


@dataclasses.dataclass(frozen=True)
class Doubling:
    """The next measured step of one axis from a cell: the gain and the cost of a doubling.

    Between `start` and `end`, with all of `fixed` the same: `gain` is the score and `cost_ratio` the cost
    of a doubling (a step of another size is taken to its root). `worth` is the gain in score that a doubling
    of the cost buys along this axis; None if the step costs nothing more.
    """

    axis: str
    fixed: Mapping[str, Any]
    start: float
    end: float
    gain: Contrast
    cost_ratio: Contrast
    worth: float | None


def next_doublings(
    table: pd.DataFrame,
    axes: Sequence[str],
    cost: str,
    *,
    at: Mapping[str, Any] | None = None,
) -> list[Doubling]:
    """Return the next step of every axis that can be bought, the best first; measured pairs only.

    They start `at` a cell; without one, at the cell from which most axes have a next step, of several at
    the largest, and at another for an axis that has none there. That cell is chosen without a look at its
    score: from the best, chance alone would make the next step a loss. A gain that is distinguishable from
    none comes before one that is not. Steps to a cell that is no better than guessing are left out: nothing is
    bought there.
    """
    runs = points(table, axes)
    kind = headline_score(table)
    scores, costs = _scores(runs, kind), log_costs(runs, cost)
    learned = above_guessing(runs, kind)
    steps = [
        step
        for step in _steps(table, axes)
        if all(point in scores and point in costs for point in step.points)
        and learned[step.points[1]]
    ]
    if at is not None:
        wanted = tuple(at.get(name) for name in axes)
        chosen = [step for step in steps if step.points[0] == wanted]
    else:
        chosen = _widest(steps, runs, axes)
    return sorted((_doubling(step, scores, costs) for step in chosen), key=_rank)


@dataclasses.dataclass(frozen=True)
class _Step:
    axis: str
    fixed: Mapping[str, Any]
    start: float
    end: float
    points: tuple[Point, Point]


def _steps(table: pd.DataFrame, axes: Sequence[str]) -> list[_Step]:
    """Return every measured step from one value of an axis to the next, all others fixed."""
    found = []
    for axis in (name for name in axes if name in BOUGHT):
        if not pd.api.types.is_numeric_dtype(table[axis]):
            continue  # some cells leave it to its default: no number to double
        for series in series_along(table, axis, axes):
            for start, end in itertools.pairwise(series.values.index):
                ends = [
                    tuple((series.fixed | {axis: value})[name] for name in axes)
                    for value in (start, end)
                ]
                found.append(_Step(axis, series.fixed, start, end, (ends[0], ends[1])))
    return found


def _widest(
    steps: Sequence[_Step], runs: Mapping[Point, Sequence[Run]], axes: Sequence[str]
) -> list[_Step]:
    """Return one step per axis, from as few cells as possible: of equal ones the best known, the largest."""
    chosen: list[_Step] = []
    left = list(steps)
    while left:
        by_cell: dict[Point, list[_Step]] = {}
        for step in left:
            by_cell.setdefault(step.points[0], []).append(step)

        def order(cell: Point) -> tuple[int, int, float]:
            fewest = min(len(runs[end]) for step in by_cell[cell] for end in step.points)  # noqa: B023
            return (len(by_cell[cell]), fewest, _size(cell, axes))  # noqa: B023

        chosen += by_cell[max(by_cell, key=order)]
        left = [step for step in left if step.axis not in {one.axis for one in chosen}]
    return chosen


def _size(cell: Point, axes: Sequence[str]) -> float:
    """Return how large a cell is: the product of its values of the axes that can be bought."""
    named = zip(axes, cell, strict=True)
    values = [float(str(v)) for name, v in named if name in BOUGHT and isinstance(v, numbers.Real)]
    return math.prod(values)


def _doubling(
    step: _Step, scores: Mapping[Point, MeanEstimate], costs: Mapping[Point, MeanEstimate]
) -> Doubling:
    start, end = step.points
    doublings = math.log2(step.end / step.start)
    weights = (1 / doublings, -1 / doublings)
    gained = combined(weights, (scores[end], scores[start]))
    gain = contrast(gained.value, gained.interval, same=0.0)
    cost_ratio = ratio(costs[end], costs[start], doublings=doublings)
    worth = gain.value / math.log2(cost_ratio.value) if cost_ratio.value > 1 else None
    return Doubling(step.axis, step.fixed, step.start, step.end, gain, cost_ratio, worth)


def _rank(one: Doubling) -> tuple[int, float]:
    """Return a key that sorts gains before what is not distinguishable, losses last; the most worth first."""
    order = {"more": 0, "not known": 1, "not distinguishable": 1, "less": 2}[one.gain.verdict]
    if one.worth is None:  # at no more cost: any gain is worth it, and any loss is not
        return order, -math.copysign(math.inf, one.gain.value) if one.gain.value else 0.0
    return order, -one.worth
