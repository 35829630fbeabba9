"""Headlines: the first sentences of a report, written from the fits with their intervals.

If an axis has no fit, the sentence has the figures at both ends of its longest series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.fits.laws import Exponent, FitGroup, Interval, LearningCurve, Refusal
from ftbench.analysis.tables.axis_series import AxisSeries, series_along
from ftbench.analysis.tables.cells_table import UNTRUSTED, headline_memory, headline_score
from ftbench.base.units import format_ratio, format_value
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.report.charts.learning import evaluation_words
from ftbench.report.elements.reasons import reason_words, weak_words
from ftbench.report.elements.tables import axis_word, format_figure, memory_word
from ftbench.report.elements.words import counted, point_text

# Groups (methods, attention, ...) that have sentences of their own; the rest are in the tables.
_MOST_GROUPS = 4
_COSTS = ("step_median_s", "total_s")
_COST_WORDS = {"step_median_s": "the step time", "total_s": "the total time"}
_AXIS_NOUNS = {
    "max_length": "the length",
    "per_device_train_batch_size": "the batch",
    "train_size": "the training examples",
}


def headlines(
    table: pd.DataFrame,
    axes: Sequence[str],
    groups: Sequence[FitGroup] = (),
    curves: Sequence[LearningCurve | Refusal] = (),
) -> list[str]:
    """Return the sentences in order: runs that finished, score by training examples, then the cost of each axis."""
    lines = [*_finished(table), *_learning(curves)]
    for axis in axes:
        fitted = list(
            _costs(groups[:_MOST_GROUPS], axis, headline_memory(table), memory_word(table))
        )
        scale = pd.api.types.is_numeric_dtype(table[axis])  # words have no first and last
        measured = series_along(table, axis, axes) if scale and not fitted else []
        lines += fitted or [_ends(series, table) for series in measured[:1]]
    return lines


def _finished(table: pd.DataFrame) -> Iterator[str]:
    finished, untrusted = (int((table["status"] == name).sum()) for name in ("ok", UNTRUSTED))
    yield f"{finished + untrusted} of {len(table)} runs finished."
    if untrusted:
        yield (
            f"{untrusted} of them with figures that cannot be right: these are left out of every"
            " table, and named below."
        )


def _learning(curves: Sequence[LearningCurve | Refusal]) -> Iterator[str]:
    """Yield the effect of training examples by the curve that is known best, or why there is none."""
    fitted = [curve for curve in curves if isinstance(curve, LearningCurve)]
    if not fitted:
        reasons = dict.fromkeys(one.reason for one in curves if isinstance(one, Refusal))
        yield from (f"No learning curve: {reason_words(reason)}." for reason in list(reasons)[:1])
        return
    curve = max(fitted, key=_known)
    sizes = sorted(curve.points)
    (first, _), (last, _) = curve.points[sizes[0]], curve.points[sizes[-1]]
    fixed = point_text(curve.fixed)
    others = len(fitted) - 1
    below = f" {others} more {'curves are' if others > 1 else 'curve is'} below." if others else ""
    way = "rises" if last.low > first.high else "falls" if last.high < first.low else "goes"
    word = curve.score.word
    yield (
        f"{word[:1].upper()}{word[1:]} {way} from {_rounded(first, curve)} at {format_value(sizes[0])} training"
        f" examples to {_rounded(last, curve)} at"
        f" {format_value(sizes[-1])}{f' ({fixed})' if fixed else ''}, {_seeds(curve)}."
        f"{evaluation_words([curve])}{_more(curve)}{below}"
    )


def _seeds(curve: LearningCurve) -> str:
    """Return how many seeds the scores are over; those of one seed are no means."""
    counts = [seeds for _, seeds in curve.points.values()]
    fewest, most = min(counts), max(counts)
    means = "means " if fewest > 1 else ""
    return f"{means}over {f'{fewest} to ' if fewest < most else ''}{counted(most, 'seed')}"


def _known(curve: LearningCurve) -> tuple[bool, int, int, float]:
    """Return how well a curve is known: not weak, over many sizes, many seeds, a narrow limit."""
    seeds = sum(seeds for _, seeds in curve.points.values())
    return (not curve.weak, len(curve.points), seeds, curve.floor.low - curve.floor.high)


def _more(curve: LearningCurve) -> str:
    """Return the scores that the fitted law gives for twice the training examples, and its limit."""
    if curve.weak:
        return f" The law fitted to it is weak: {weak_words(curve.weak)}."
    twice = 2 * max(curve.points)
    limit = Interval(1 - curve.floor.value, 1 - curve.floor.high, 1 - curve.floor.low)
    return (
        f" By the fitted law, {format_value(twice)} training examples would give"
        f" {_rounded(curve.predict(twice), curve)}, and the limit is {_rounded(limit, curve)}."
    )


def _rounded(of: Interval, curve: LearningCurve) -> str:
    least, most = curve.score.bounds
    low, high = f"{max(of.low, least):.3f}", f"{min(of.high, most):.3f}"
    return f"{of.value:.3f}" + (f" ({low} to {high})" if low != high else "")


def _costs(groups: Sequence[FitGroup], axis: str, memory: str, word: str) -> Iterator[str]:
    """Yield, for each group, the cost of the last doubling along an axis."""
    differing = _differing(groups)
    words = _COST_WORDS | {memory: f"the {word}"}
    costs = ("total_s",) if axis == "train_size" else ("step_median_s", memory)
    for group in groups:
        last = _last(group.exponents, axis, costs[0])
        if last is None:
            continue
        same = [
            one
            for one in group.exponents
            if (one.axis, one.start, one.end, one.fixed) == (axis, last.start, last.end, last.fixed)
        ]
        by_cost = {one.cost: one for one in same}
        said = [
            f"{times(by_cost[cost].exponent)} {words[cost]}" for cost in costs if cost in by_cost
        ]
        mine = point_text({name: group.fixed[name] for name in differing})
        yield _sentence(last, said, mine)


def _sentence(one: Exponent, said: Sequence[str], group: str) -> str:
    noun = _AXIS_NOUNS.get(one.axis, one.axis)
    fixed = point_text({name: value for name, value in one.fixed.items() if name in REQUIRED_AXES})
    at = f" ({fixed})" if fixed else ""
    doubling = one.end == 2 * one.start
    what = (
        f"Doubling {noun} from {format_value(one.start)} to {format_value(one.end)}{at} costs"
        if doubling
        else f"From {axis_word(one.axis)} {format_value(one.start)} to {format_value(one.end)}{at},"
        " a doubling costs"
    )
    whose = f"With {group}: " if group else ""
    text = f"{what} {' and '.join(said)}."
    return whose + (text[0].lower() + text[1:] if whose else text)


def times(exponent: Interval) -> str:
    """Return the factor of a cost over a doubling, as an interval in words: `1.9 to 2.1 times`."""
    low, high = 2**exponent.low, 2**exponent.high
    digits = 1 if high - low >= 0.1 else 2
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return f"{ends[0]} times" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} times"


def _last(exponents: Sequence[Exponent], axis: str, cost: str) -> Exponent | None:
    """Return the exponent at the top of an axis, over a doubling if there is one, in the largest cell."""
    found = [one for one in exponents if one.axis == axis and one.cost == cost]
    return max(
        found,
        key=lambda one: (one.end, one.end == 2 * one.start, -one.start, _size(one.fixed)),
        default=None,
    )


def _size(fixed: Mapping[str, Any]) -> float:
    """Return how large a cell is: the product of its fixed values of the main axes."""
    return math.prod(float(value) for name, value in fixed.items() if name in REQUIRED_AXES)


def _differing(groups: Sequence[FitGroup]) -> list[str]:
    """Return the settings that differ between groups."""
    names = dict.fromkeys(name for group in groups for name in group.fixed)
    return [name for name in names if len({repr(group.fixed.get(name)) for group in groups}) > 1]


def _ends(series: AxisSeries, table: pd.DataFrame) -> str:
    """Return the figures at the ends of a series: `Length 32 to 128 (at ...): a step from ...`."""
    first, last = series.values.iloc[0], series.values.iloc[-1]
    low, high = series.values.index[0], series.values.index[-1]
    parts = []
    words = {"step_median_s": "a step", "total_s": "the whole run"}
    for name, word in (words | {headline_memory(table): memory_word(table)}).items():
        if pd.notna(first[name]) and pd.notna(last[name]):
            parts.append(
                f"{word} from {format_figure(name, first[name])} to {format_figure(name, last[name])}"
                f" ({format_ratio(last[name] / first[name])})"
            )
    score = headline_score(table)
    if series.axis == "train_size" and pd.notna(first[score.column]):
        ends = f"{first[score.column]:.3f} to {last[score.column]:.3f}"
        parts.insert(0, f"{score.word} from {ends}")
    fixed = point_text(series.fixed)
    word = axis_word(series.axis)
    return f"{word[0].upper()}{word[1:]} {low} to {high} (at {fixed}): {'; '.join(parts)}."


def stats(table: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the report in a few figures: (what, value, note)."""
    done = int(table["status"].isin(["ok", UNTRUSTED]).sum())
    cells = counted(table["cell_id"].nunique(), "cell")
    found = [("runs finished", f"{done} of {len(table)}", f"of {cells}")]
    finished = table[table["status"] == "ok"]
    memory = headline_memory(table)
    for name, word in (("step_median_s", "step time"), (memory, memory_word(table))):
        values = finished[name].dropna()
        if len(values):
            ends = [format_figure(name, value) for value in (values.min(), values.max())]
            found.append((word, " to ".join(dict.fromkeys(ends)), "least to most"))
    score = headline_score(table)
    scored = finished.dropna(subset=[score.column])
    if len(scored):
        best = scored.sort_values(score.column, kind="stable").iloc[-1]
        varying = [name for name in axes if table[name].nunique(dropna=False) > 1]
        point = {name: best[name] for name in dict.fromkeys([*REQUIRED_AXES, *varying])}
        guess = best["score_guess"]
        guessing = f"; guessing gives {guess:.3f}" if pd.notna(guess) else ""
        note = f"one run, {point_text(point)}{guessing}"
        found.append((f"best {score.word}", f"{best[score.column]:.3f}", note))
    return found
