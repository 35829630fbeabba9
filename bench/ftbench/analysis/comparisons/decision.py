"""Decision: the cell to train with: the cheapest whose score no other cell is known to beat. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    MeanEstimate,
    Point,
    Run,
    by_seed,
    difference,
    is_more,
    known,
    mean_scores,
    points,
)
from ftbench.analysis.comparisons.guessing import above_guessing
from ftbench.analysis.fits.laws import Interval
from ftbench.analysis.tables.cells_table import headline_memory, headline_score

# Below the quantile of a normal distribution for 95 %, and so below any of Student's t.
_NEAR = 1.95


@dataclasses.dataclass(frozen=True)
class Option:
    """One cell that can be chosen: its values of the axes, its score, and its median costs in seconds and bytes.

    The interval of the score is None if its noise is not known, the memory if it was not measured.
    """

    point: Mapping[str, Any]
    score: float
    interval: Interval | None
    total_s: float
    memory_bytes: float | None


@dataclasses.dataclass(frozen=True)
class Decision:
    """The chosen cell, the others that noise does not tell from it, and the cheapest that gives up some score.

    `chosen` is the cheapest in time of the cells that no other beats by more than noise; the others of these cost
    more, and are in `as_good`, the highest score first. `cheaper` is the cheapest cell that learned something, if
    it is another; `lost` is the difference in score that it costs. `worse` cells are beaten by another cell by
    more than noise, `guessing` cells are no better than guessing.
    """

    chosen: Option
    as_good: tuple[Option, ...]
    cheaper: Option | None
    lost: float
    worse: int
    guessing: int
    one_seed: bool

    @property
    def compared(self) -> int:
        """Return the number of cells that were compared."""
        return 1 + len(self.as_good) + self.worse + self.guessing


def decision(table: pd.DataFrame, axes: Sequence[str]) -> Decision | None:
    """Return the decision that a table of cells allows; None if fewer than two cells have a score and a time.

    It is also None if no cell is better than guessing: nothing is known of any.
    """
    kind, runs = headline_score(table), points(table, axes)
    scores = {
        point: mean.estimate
        for point, mean in mean_scores(runs, kind.column).items()
        if known(runs[point], "total_s")
    }
    learned = above_guessing(runs, kind)
    options = {
        point: _option(dict(zip(axes, point, strict=True)), runs[point], score, table)
        for point, score in scores.items()
    }
    order = sorted(scores, key=lambda one: (options[one].total_s, -options[one].score))
    candidates = [point for point in order if learned[point]]
    if len(order) < 2 or not candidates:
        return None
    chosen, *as_good = _unbeaten(candidates, scores)
    as_good.sort(key=lambda one: -options[one].score)
    first = candidates[0]
    return Decision(
        chosen=options[chosen],
        as_good=tuple(options[one] for one in as_good),
        cheaper=None if first == chosen else options[first],
        lost=options[chosen].score - options[first].score,
        worse=len(candidates) - 1 - len(as_good),
        guessing=len(order) - len(candidates),
        one_seed=all(len(by_seed(runs[one], kind.column)) <= 1 for one in order),
    )


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
        statistics.median(peaks) if peaks else None,
    )


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
