"""Headlines: the first sentences of a report, written from the fits with their intervals.

If an axis has no fit, the sentence has the figures at both ends of its longest series.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from ftbench.analysis.comparisons.contrast import (
    MeanScore,
    by_seed,
    difference,
    known,
    mean_scores,
    points,
)
from ftbench.analysis.comparisons.guessing import GUESS, above_guessing
from ftbench.analysis.fits.laws import Exponent, FitGroup, Interval, LearningCurve, Refusal
from ftbench.analysis.tables.axis_series import AxisSeries, series_along
from ftbench.analysis.tables.cells_table import headline_memory, headline_score
from ftbench.base.units import counted, format_ratio, format_value
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.scores import ScoreKind
from ftbench.records.invariants import UNTRUSTED
from ftbench.report.charts.learning import evaluation_words
from ftbench.report.elements.reasons import weak_words
from ftbench.report.elements.tables import figure_texts, memory_word
from ftbench.report.elements.words import axis_word, point_text

# Groups (methods, attention, ...) that have sentences of their own; the rest are in the tables.
_MOST_GROUPS = 4
_COSTS = ("step_median_s", "total_s")
# The width of an exponent's interval at which a factor's upper end is eight times its lower one: nothing is known.
_WIDEST = 3.0
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
    """Return the sentences in order: scores that are guesses, runs that finished, learning, costs."""
    learning = [*_learning(curves)] or [*_measured_learning(table, axes)]
    lines = [*_guessing(table, axes), *_finished(table), *learning]
    for axis in axes:
        fitted = list(
            _costs(groups[:_MOST_GROUPS], axis, headline_memory(table), memory_word(table))
        )
        scale = pd.api.types.is_numeric_dtype(table[axis])  # words have no first and last
        measured = series_along(table, axis, axes) if scale and not fitted else []
        lines += fitted or [_ends(series, table) for series in measured[:1]]
    return lines


def _guessing(table: pd.DataFrame, axes: Sequence[str]) -> Iterator[str]:
    """Yield how many cells' scores are within noise of a model that does not read the text, if any are."""
    kind, runs = headline_score(table), points(table, axes)
    above = above_guessing(runs, kind)
    guessing = sum(not learned for learned in above.values())
    if not guessing:
        return
    if guessing < len(above):
        yield (
            f"In {guessing} of {counted(len(above), 'cell')} the {kind.word} is not distinguishable from guessing:"
            f" {'it is' if guessing == 1 else 'they are'} compared with no other."
        )
        return
    best = _best(table, axes)
    assert best is not None
    yield (
        f"Nothing was learned that shows: no cell's {kind.word} is distinguishable from guessing"
        f" ({best.score:.3f} at best; guessing gives {best.guess:.3f})."
    )


class _Best(NamedTuple):
    """The cell with the highest mean score, and what guessing gives there."""

    point: Mapping[str, Any]
    score: float
    seeds: int
    guess: float | None


def _best(table: pd.DataFrame, axes: Sequence[str]) -> _Best | None:
    """Return the best cell, as the front ranks cells: by the mean over seeds; None if no cell has a score.

    One that is no better than guessing is the best only if all are.
    """
    kind, runs = headline_score(table), points(table, axes)
    means = mean_scores(runs, kind.column)
    if not means:
        return None
    above = above_guessing(runs, kind)
    point = max(means, key=lambda one: (above[one], means[one].value))
    guesses = known(runs[point], GUESS)
    return _Best(
        dict(zip(axes, point, strict=True)),
        means[point].value,
        len(by_seed(runs[point], kind.column)),
        sum(guesses) / len(guesses) if guesses else None,
    )


def _finished(table: pd.DataFrame) -> Iterator[str]:
    finished, untrusted = (int((table["status"] == name).sum()) for name in ("ok", UNTRUSTED))
    yield f"{finished + untrusted} of {counted(len(table), 'run')} finished."
    if untrusted:
        yield (
            f"{untrusted} of them with figures that cannot be right: these are left out of every"
            " table, and named below."
        )


def _learning(curves: Sequence[LearningCurve | Refusal]) -> Iterator[str]:
    """Yield the effect of training examples by the curve that is known best, if there is one."""
    fitted = [curve for curve in curves if isinstance(curve, LearningCurve)]
    if not fitted:
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


def _measured_learning(table: pd.DataFrame, axes: Sequence[str]) -> Iterator[str]:
    """Yield the scores at both ends of the longest series of training examples, and how far they differ."""
    kind = headline_score(table)
    scores = mean_scores(points(table, axes), kind.column)
    for series in series_along(table, "train_size", axes) if "train_size" in axes else ():
        measured = {
            size: scores[point]
            for size in series.values.index
            if (point := tuple({**series.fixed, "train_size": size}[axis] for axis in axes))
            in scores
        }
        if len(measured) > 1:
            fixed = point_text(series.fixed)
            yield _rise(kind, measured, f" ({fixed})" if fixed else "")
            return


def _rise(kind: ScoreKind, measured: Mapping[int, MeanScore], where: str) -> str:
    """Return the difference in score between the fewest and the most training examples as a sentence."""
    (few, first), (many, last) = min(measured.items()), max(measured.items())
    found = difference(last.estimate, first.estimate)
    way = {"more": "rises", "less": "falls"}.get(found.verdict, "goes")
    ends = f" ({found.interval.low:+.3f} to {found.interval.high:+.3f})" if found.interval else ""
    noise = ", not distinguishable from none" if found.verdict == "not distinguishable" else ""
    seeds = "; each is of one seed" if first.of_seeds.variance is None else ""
    return (
        f"{kind.word[:1].upper()}{kind.word[1:]} {way} from {first.value:.3f} at {format_value(few)} training"
        f" examples to {last.value:.3f} at {format_value(many)}{where}: a difference of {found.value:+.3f}{ends}"
        f"{noise}{seeds}."
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
            f"{times(by_cost[cost].exponent)} {words[cost]}"
            for cost in costs
            if cost in by_cost and is_known(by_cost[cost].exponent)
        ]
        if not said:
            continue
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


def is_known(exponent: Interval) -> bool:
    """Return whether the ends of a factor over a doubling are close enough to say anything."""
    return exponent.high - exponent.low <= _WIDEST


def times(exponent: Interval) -> str:
    """Return the factor of a cost over a doubling, as an interval in words: `1.9 to 2.1 times`, or `not known`."""
    if not is_known(exponent):
        return "not known"
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
            ends = " to ".join(figure_texts(name, (first[name], last[name])))
            parts.append(f"{word} from {ends} ({format_ratio(last[name] / first[name])})")
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
            ends = figure_texts(name, (values.min(), values.max()))
            found.append((word, " to ".join(dict.fromkeys(ends)), "least to most"))
    best = _best(table, axes)
    if best is not None:
        varying = [name for name in axes if table[name].nunique(dropna=False) > 1]
        shown = {name: best.point[name] for name in dict.fromkeys([*REQUIRED_AXES, *varying])}
        guessing = f"; guessing gives {best.guess:.3f}" if best.guess is not None else ""
        over = f"mean over {best.seeds} seeds" if best.seeds > 1 else "one seed"
        note = f"{over}, {point_text(shown)}{guessing}"
        found.append((f"best {headline_score(table).word}", f"{best.score:.3f}", note))
    return found
