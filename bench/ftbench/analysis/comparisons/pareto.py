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
    known,
    log_costs,
    mean_scores,
    points,
    ratio,
)
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


def money(seconds: float, usd_per_hour: float) -> float:
    """Return the price of a time at an hourly price, in USD: its front is that of time."""
    return seconds * usd_per_hour / SECONDS_PER_HOUR


def standings(table: pd.DataFrame, cost: str, axes: Sequence[str]) -> pd.DataFrame:
    """Return every cell with its standing, the cheapest first: the axes, then FIGURES.

    `front`: no cell is better in one of score and cost and as good in the other, and its lead in score over
    the `front` cell before it is larger than noise (the cheapest has no lead). `not distinguishable`: no
    cell is better by the figures, but the lead is within noise, or it is a tie. `dominated`: the rest. A
    cell that is behind in both by no more than noise is `not distinguishable` too. Figures whose noise is
    not known (a cost that was read once) are taken as they are.
    """
    runs = points(table, axes)
    kind = headline_score(table)
    scores, costs = _scores(runs, kind), log_costs(runs, cost)
    rows = [
        (point, _row(point, axes, runs[point], score, kind) | {"cost": _cost(runs[point], cost)})
        for point, score in scores.items()
        if point in costs
    ]
    rows.sort(key=lambda one: (one[1]["cost"], -one[1]["score"]))
    front = _on_front([(row["cost"], row["score"]) for _, row in rows])
    base: Point | None = None
    for (point, row), there in zip(rows, front, strict=True):
        if not there:
            dominators = (
                other
                for (other, better), on in zip(rows, front, strict=True)
                if on and better["cost"] <= row["cost"] and better["score"] >= row["score"]
            )
            dominated = any(_is_worse(point, other, scores, costs) for other in dominators)
            row["standing"] = "dominated" if dominated else "not distinguishable"
            continue
        lead = None if base is None else difference(scores[point], scores[base])
        if lead is None or _holds(lead):
            row["standing"], base = "front", point
        else:
            row["standing"] = "not distinguishable"
        row |= _lead(lead)
    return pd.DataFrame([row for _, row in rows], columns=[*axes, *FIGURES])


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


def _holds(lead: Contrast) -> bool:
    return lead.verdict == "more" or (lead.verdict == "not known" and lead.value > 0)


def _lead(lead: Contrast | None) -> dict[str, float]:
    if lead is None:
        return {}
    if lead.interval is None:
        return {"lead": lead.value}
    return {"lead": lead.value, "lead_low": lead.interval.low, "lead_high": lead.interval.high}


def _on_front(cells: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which (cost, score) no other is better than, given in rising order of cost.

    Cells that agree in both are all on it or all off it.
    """
    found, best = [], (-math.inf, -math.inf)  # (score, less cost) of the best so far
    for cost, score in cells:
        found.append(score > best[0] or (score, -cost) == best)
        if score > best[0]:
            best = (score, -cost)
    return found


def _is_worse(
    cell: Point,
    other: Point,
    scores: Mapping[Point, MeanEstimate],
    costs: Mapping[Point, MeanEstimate],
) -> bool:
    """Return whether a cell that is behind another is so by more than noise in either figure."""
    if difference(scores[other], scores[cell]).verdict == "more":
        return True
    return ratio(costs[cell], costs[other]).verdict in ("more", "not known")


def score_levels(cells: pd.DataFrame) -> list[float]:
    """Return round scores between the least and the most that the front reaches."""
    if cells.empty:
        return []
    front = cells[cells["standing"] != "dominated"]["score"]
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
    rows: list[dict[Hashable, Any]] = []
    for level in levels:
        reached = cells[cells["score"] >= level - 1e-9]
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
    none comes before one that is not.
    """
    runs = points(table, axes)
    scores, costs = _scores(runs, headline_score(table)), log_costs(runs, cost)
    steps = [
        step
        for step in _steps(table, axes)
        if all(point in scores and point in costs for point in step.points)
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
