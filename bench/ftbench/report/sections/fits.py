"""Fits as tables: each law with its error on held-out cells, and the cost of a doubling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ftbench.analysis.fits.laws import Fit, FitGroup, HeldOut, Interval, LearningCurve, Refusal
from ftbench.analysis.fits.scaling import LENGTH_AND_BATCH, has_slope, slope_per_sample
from ftbench.base.units import ByteUnit, byte_unit, counted, format_bytes, format_value
from ftbench.report.charts.learning import evaluation_words
from ftbench.report.elements.reasons import reason_words, weak_words
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import FIGURE_WORDS, axis_word, point_text
from ftbench.report.sections.headlines import times

NOTE = (
    "Every law is fitted to all runs of its cells and checked on cells it was not given: one cell at a time"
    " (inside), and the largest cells of an axis left out (beyond; the median over all of them, and for each axis)."
    " The errors are shares of the measured value."
    " B is the batch, S the length; constants are in seconds or bytes, with 95 % intervals in brackets."
)
LEARNING_NOTE = (
    "The law is 1 - score = floor + a x examples ^ -b, fitted over seeds. It is checked on sizes that it was not"
    " given: one at a time (inside), and the largest (beyond); the errors are shares of the score."
)
LENGTH, BATCH = LENGTH_AND_BATCH
# Rows of the table of doublings; a grid of a thousand cells has thousands of them.
_MOST_EXPONENTS = 60


def fit_tables(groups: Sequence[FitGroup]) -> tuple[Table, ...]:
    """Return the laws, the cost of a doubling, and the memory of an example; empty if nothing is fitted."""
    rows = tuple(_row(group, fit) for group in groups for fit in group.fits.values())
    heads = ("cost", "cells", "off inside", "off beyond", "weak", "law", "constants", "from")
    laws = Table("The laws", heads, rows, (False, False, True, True) + (False,) * 4)
    found = (laws, _doublings(groups), _examples(groups))
    return tuple(table for table in found if table.rows)


def refusals(groups: Sequence[FitGroup]) -> Iterator[str]:
    """Yield why costs have no fit, a sentence for each reason."""
    for group in groups:
        of = point_text(group.fixed)
        for reason in dict.fromkeys(one.reason for one in group.refused):
            costs = [one.cost for one in group.refused if one.reason == reason]
            *words, last = (FIGURE_WORDS.get(cost, cost) for cost in costs)
            named = f"{', '.join(words)} or {last}" if words else last
            yield f"No fit of {named}{f' ({of})' if of else ''}: {reason_words(reason)}."


def learning_section(
    curves: Sequence[LearningCurve | Refusal],
) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables): why there is no learning curve, and the laws of those there are."""
    fitted = [curve for curve in curves if isinstance(curve, LearningCurve)]
    note = LEARNING_NOTE + evaluation_words(fitted)
    notes = (*([note] if fitted else []), *no_curves(curves))
    rows = tuple(
        (
            point_text(curve.fixed) or "all",
            str(sum(seeds for _, seeds in curve.points.values())),
            _error(curve.interpolation),
            _error(curve.extrapolation),
            weak_words(curve.weak) or ABSENT,
            *(_interval(of) for of in (curve.floor, curve.a, curve.b)),
        )
        for curve in fitted
    )
    heads = ("cells", "runs", "off inside", "off beyond", "weak", "floor", "a", "b")
    numeric = (False, True, True, True, False, True, True, True)
    return notes, ((Table(_curve_title(fitted), heads, rows, numeric),) if rows else ())


def _curve_title(curves: Sequence[LearningCurve]) -> str:
    words = dict.fromkeys(curve.score.word for curve in curves)
    return f"Laws of {' and '.join(words)}"


def no_curves(curves: Sequence[LearningCurve | Refusal]) -> Iterator[str]:
    """Yield each reason that cells have no learning curve for, once."""
    refused = [curve for curve in curves if isinstance(curve, Refusal)]
    for reason in dict.fromkeys(one.reason for one in refused):
        of = [point_text(one.fixed) for one in refused if one.reason == reason]
        whose = f" of {of[0]}" if of[0] else ""
        more = f" and {counted(len(of) - 1, 'other kind')} of cells" if len(of) > 1 else ""
        yield f"No learning curve{whose}{more}: {reason_words(reason)}."


def _row(group: FitGroup, fit: Fit) -> tuple[str, ...]:
    in_bytes = fit.cost.endswith("_bytes")
    constants = "; ".join(
        f"{name} = {_bytes(at) if in_bytes else _interval(at)}"
        for name, at in fit.coefficients.items()
    )
    return (
        FIGURE_WORDS.get(fit.cost, fit.cost),
        point_text(group.fixed) or "all",
        _error(fit.interpolation),
        _error(fit.extrapolation),
        weak_words(fit.weak) or ABSENT,
        fit.law,
        constants,
        f"{counted(fit.runs, 'run')} of {counted(fit.cells, 'cell')}",
    )


def _error(held_out: HeldOut | None) -> str:
    if held_out is None:
        return ABSENT
    by_axis = [f"{axis_word(axis)} {error:.1%}" for axis, error in held_out.by_axis.items()]
    each = f"; {', '.join(by_axis)}" if len(by_axis) > 1 else ""
    return f"{held_out.median_error:.1%} (at most {held_out.largest_error:.1%}{each})"


def _bytes(of: Interval, unit: ByteUnit | None = None) -> str:
    """Return an interval of bytes, its ends in one unit with its value."""
    among = unit or byte_unit((of.value, of.low, of.high))
    return _interval(of, lambda value: format_bytes(round(value), among))


def _interval(of: Interval, form: Callable[[float], str] = "{:.3g}".format) -> str:
    value, low, high = map(form, (of.value, of.low, of.high))
    return value if low == high else f"{value} ({low} to {high})"


def _doublings(groups: Sequence[FitGroup]) -> Table:
    """Return the cost of a doubling along each axis: one row per place and one column per cost."""
    costs = list(dict.fromkeys(one.cost for group in groups for one in group.exponents))
    places: dict[tuple[str, ...], dict[str, str]] = {}
    for group in groups:
        for one in group.exponents:
            of = point_text({**group.fixed, **one.fixed})
            key = (axis_word(one.axis), f"{format_value(one.start)} to {format_value(one.end)}", of)
            places.setdefault(key, {})[one.cost] = times(one.exponent)
    rows = tuple(
        (*key, *(found.get(cost, ABSENT) for cost in costs)) for key, found in places.items()
    )[:_MOST_EXPONENTS]
    heads = ("axis", "from", "at", *(FIGURE_WORDS.get(cost, cost) for cost in costs))
    numeric = (False,) * 3 + (True,) * len(costs)
    return Table("What a doubling costs", heads, rows, numeric, folded=len(rows) > 12)


def _examples(groups: Sequence[FitGroup]) -> Table:
    """Return the memory of one more example of a batch, at each length at which the batch sets the peak."""
    found = [
        (
            (word, point_text(group.fixed) or "all", format_value(length)),
            slope_per_sample(fit, int(length)),
            int(length),
        )
        for group in groups
        for cost, fit in group.fits.items()
        if (word := FIGURE_WORDS.get(cost)) and cost.endswith("_bytes")
        for length in _values(group, cost, LENGTH)
        if has_slope(fit, {LENGTH: length, BATCH: max(_values(group, cost, BATCH), default=1)})
    ]
    examples = [example for _, example, _ in found]
    tokens = [
        Interval(*(end / length for end in (example.value, example.low, example.high)))
        for _, example, length in found
    ]
    shown = zip(_in_one_unit(examples), _in_one_unit(tokens), strict=True)
    rows = tuple((*of, *texts) for (of, _, _), texts in zip(found, shown, strict=True))
    heads = ("memory", "of", "length", "per example", "per token")
    return Table(
        "Memory of one more example of a batch",
        heads,
        rows,
        (False, False, True, True, True),
        folded=len(rows) > 12,
    )


def _values(group: FitGroup, cost: str, axis: str) -> list[float]:
    """Return the values of an axis that a cost was measured at."""
    along = [one for one in group.exponents if (one.cost, one.axis) == (cost, axis)]
    return sorted({end for one in along for end in (one.start, one.end)})


def _in_one_unit(slopes: Sequence[Interval]) -> list[str]:
    """Return bytes with their intervals, as a column of a table has them."""
    unit = byte_unit(end for of in slopes for end in (of.value, of.low, of.high))
    return [_bytes(of, unit) for of in slopes]
