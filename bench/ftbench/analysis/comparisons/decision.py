"""Decision: the cell to train with: the cheapest whose score no other cell is known to beat. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    ENVIRONMENT,
    MeanEstimate,
    Point,
    Run,
    by_seed,
    difference,
    is_more,
    known,
    log_costs,
    mean_scores,
    points,
    ratio,
)
from ftbench.analysis.comparisons.guessing import above_guessing
from ftbench.analysis.fits.laws import Interval
from ftbench.analysis.tables.cells_table import headline_memory, headline_score

# Below the quantile of a normal distribution for 95 %, and so below any of Student's t.
_NEAR = 1.95
# A smaller ratio of two costs decides nothing: a cell that was run once does not say how far another run would lie.
SAME_COST = 1.05
_PROCESSES = "num_processes"
_COST = "device_s"  # the time of a run on all of its devices: what is paid for


@dataclasses.dataclass(frozen=True)
class Option:
    """One cell that can be chosen: its values of the axes, its score, and its median costs in seconds and bytes.

    The interval of the score is None if its noise is not known, the memory if it was not measured. `device_s` is
    the time on all devices of the cell together.
    """

    point: Mapping[str, Any]
    score: float
    interval: Interval | None
    total_s: float
    device_s: float
    memory_bytes: float | None


@dataclasses.dataclass(frozen=True)
class Decision:
    """The chosen cell, the others that noise does not tell from it, and the cheapest that gives up some score.

    No other cell beats `chosen` by more than noise, nor those of `dearer` and `alike`, the highest score first:
    the former cost more, the latter as much, or have a lower mean than a cell that costs less. `cheaper` is the
    cheapest cell that learned something, if it costs less than the chosen one; `lost` is the difference in score.
    `worse` cells are beaten by another by more than noise, `guessing` cells are no better than guessing, and
    `unscored` ones have no score or no time. `points` are those that were compared.
    """

    chosen: Option
    dearer: tuple[Option, ...]
    alike: tuple[Option, ...]
    cheaper: Option | None
    worse: int
    guessing: int
    unscored: int
    one_seed: bool
    points: tuple[Mapping[str, Any], ...]

    @property
    def as_good(self) -> tuple[Option, ...]:
        """Return all cells that are not distinguishable from the chosen one, the highest score first."""
        return tuple(sorted((*self.dearer, *self.alike), key=lambda one: -one.score))

    @property
    def lost(self) -> float:
        """Return the score that the cheapest cell gives up."""
        return self.chosen.score - self.cheaper.score if self.cheaper else 0.0


def decision(table: pd.DataFrame, axes: Sequence[str]) -> Decision | None:
    """Return the decision that a table of cells allows; None if fewer than two cells have a score and a time.

    It is also None if no cell is better than guessing, for then nothing is known of any; and if the runs are of
    several machines, whose times do not compare.
    """
    if ENVIRONMENT in axes:
        return None
    kind, runs = headline_score(table), points(_with_cost(table), axes)
    costs = log_costs(runs, _COST)
    means = mean_scores(runs, kind.column)
    scores = {point: mean.estimate for point, mean in means.items() if point in costs}
    learned = above_guessing(runs, kind)
    options = {
        point: _option(dict(zip(axes, point, strict=True)), runs[point], score, table)
        for point, score in scores.items()
    }
    order = sorted(scores, key=lambda one: (options[one].device_s, -options[one].score))
    candidates = [point for point in order if learned[point]]
    if len(order) < 2 or not candidates:
        return None
    unbeaten = dict.fromkeys(_unbeaten(candidates, scores))
    rising = [one for one in _rising(candidates, options) if one in unbeaten]
    same = [one for one in rising if not _costs_more(one, rising[0], costs)]
    chosen, first = same[-1], candidates[0]  # of equal cost the highest: means rise with the cost
    dearer = [one for one in rising if one not in same]
    alike = [one for one in unbeaten if one != chosen and one not in dearer]
    saves = options[first].score < options[chosen].score and _costs_more(chosen, first, costs)
    return Decision(
        chosen=options[chosen],
        dearer=_highest_first(dearer, options),
        alike=_highest_first(alike, options),
        cheaper=options[first] if saves else None,
        worse=len(candidates) - len(unbeaten),
        guessing=len(order) - len(candidates),
        unscored=len(table[list(axes)].drop_duplicates()) - len(order),
        one_seed=all(len(by_seed(runs[one], kind.column)) <= 1 for one in order),
        points=tuple(options[one].point for one in order),
    )


def _with_cost(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the time on all devices of a run together."""
    if _PROCESSES not in table:
        return table.assign(**{_COST: table["total_s"]})
    return table.assign(**{_COST: table["total_s"] * table[_PROCESSES].fillna(1).astype(float)})


def _option(
    point: Mapping[str, Any], runs: Sequence[Run], score: MeanEstimate, table: pd.DataFrame
) -> Option:
    (least, most), ends = headline_score(table).bounds, score.interval
    peaks = known(runs, headline_memory(table))
    return Option(
        point,
        score.value,
        ends and Interval(score.value, max(ends.low, least), min(ends.high, most)),
        statistics.median(known(runs, "total_s")),
        statistics.median(known(runs, _COST)),
        statistics.median(peaks) if peaks else None,
    )


def _highest_first(some: Iterable[Point], options: Mapping[Point, Option]) -> tuple[Option, ...]:
    return tuple(sorted((options[one] for one in some), key=lambda one: -one.score))


def _unbeaten(candidates: Sequence[Point], scores: Mapping[Point, MeanEstimate]) -> list[Point]:
    """Return the candidates that no other beats by more than noise, in their order: the highest is one."""
    highest = sorted(candidates, key=lambda one: -scores[one].value)
    rank = {point: n for n, point in enumerate(highest)}
    return [
        point
        for point in candidates
        if not any(_beats(scores[one], scores[point]) for one in highest[: rank[point]])
    ]


def _beats(one: MeanEstimate, other: MeanEstimate) -> bool:
    """Return whether a score is above another by more than noise; most pairs need no interval to tell."""
    noise = (one.variance or 0.0) + (other.variance or 0.0)
    return one.value - other.value > _NEAR * math.sqrt(noise) and is_more(difference(one, other))


def _rising(candidates: Sequence[Point], options: Mapping[Point, Option]) -> list[Point]:
    """Return the candidates whose mean is above that of all before them, which cost no more.

    Noise alone keeps another from being beaten: to take it would be to prefer what is less known.
    """
    found: list[Point] = []
    for point in candidates:
        if not found or options[point].score > options[found[-1]].score:
            found.append(point)
    return found


def _costs_more(one: Point, other: Point, costs: Mapping[Point, MeanEstimate]) -> bool:
    """Return whether a cell costs more than another, by more than noise and by more than SAME_COST."""
    found = ratio(costs[one], costs[other])
    return found.value > SAME_COST and found.verdict in ("more", "not known")
