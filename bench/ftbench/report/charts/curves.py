"""Curves: a cost along an axis; every run as a point, the fit as a line with its 95 % band.

Settings that change no cost separate no curves: each method has a learning rate of its own, for example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftbench.analysis.fits.laws import Fit, FitGroup
from ftbench.base.units import ByteUnit, format_value
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.settings import COSTLESS
from ftbench.report.charts.inputs import ChartInputs
from ftbench.report.charts.scales import (
    NUMBER,
    Unit,
    axis_title,
    log_ticks,
    spacing,
    spread_out,
    titled,
    unit_of,
)
from ftbench.report.charts.theme import CATEGORIES, finish, legend_columns
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from ftbench.report.elements.reasons import reason_words, weak_words
from ftbench.report.elements.tables import figure_texts, figure_unit, format_figure
from ftbench.report.elements.words import FIGURE_WORDS, axis_word, point_text

if TYPE_CHECKING:
    import altair as alt

    from ftbench.report.charts.theme import AnyChart

LENGTH, BATCH, EXAMPLES = REQUIRED_AXES
CHOOSER = "Curves at"
# As many as there are colours that can be told apart.
MOST_SERIES = 6
_LINE_POINTS = 24
_COST_WORDS = {"step_median_s": "Step time", "total_s": "Total time"}
# The columns of the ends of a cost's interval within one run.
_INTERVALS = {"step_median_s": ("step_low_s", "step_high_s")}
_LABELLED = 10  # values of an axis that are all labelled; if there are more, the chart chooses


def curves(inputs: ChartInputs) -> Iterator[ReportFigure]:
    """Yield a figure for each cost and axis that is worth one: the axis has two values or more."""
    memory = inputs.memory
    wanted = [
        (LENGTH, "step_median_s"),
        (LENGTH, memory),
        (BATCH, "step_median_s"),
        (BATCH, memory),
        (EXAMPLES, "total_s"),
    ]
    for axis, cost in wanted:
        found = inputs.finished.dropna(subset=[cost])
        if found[axis].nunique() > 1:
            yield _curve(inputs, axis, cost)


def _curve(inputs: ChartInputs, axis: str, cost: str) -> ReportFigure:
    word = _COST_WORDS.get(cost) or FIGURE_WORDS[cost].replace("peak", "Peak")
    values = inputs.finished.dropna(subset=[cost])
    colour = _coloured(inputs, values, axis)
    table = _kept(values, colour)
    lines = fit_words(inputs.groups, cost, list(_drawn(inputs, table, axis, cost, colour)))
    many = values[colour].nunique() if colour else 0
    some = f" {MOST_SERIES} of {many} are drawn." if many > MOST_SERIES else ""
    low, high = (
        values.loc[values[axis] == end, cost].median()
        for end in (min(values[axis]), max(values[axis]))
    )
    return ReportFigure(
        name=f"{cost.removesuffix('_s').removesuffix('_bytes')} {axis_word(axis)}".replace(
            "_", "-"
        ).replace(" ", "-"),
        title=f"{word} along {axis_word(axis)}",
        caption=f"Points are runs{_bar_words(values, cost)}.{some}{lines}",
        alt=(
            f"{word} along {axis_word(axis)} {min(values[axis])} to {max(values[axis])}: medians over"
            f" all cells from {' to '.join(figure_texts(cost, (low, high)))}."
        ),
        draw=lambda: _draw(inputs, table, axis, cost, colour),
        chooser=f"{CHOOSER[:-3]} along {axis_word(axis)} at",
    )


def _bar_words(values: pd.DataFrame, cost: str) -> str:
    """Return that bars are drawn; empty if no run has an interval."""
    if cost not in _INTERVALS:
        return ""
    low, high = (values[name] for name in _INTERVALS[cost])
    return ", bars the 95 % intervals of their medians" if (low < high).any() else ""


def fit_words(groups: Sequence[FitGroup], cost: str, drawn: Sequence[Fit | None]) -> str:
    """Return what the drawn lines are, and their errors on held-out cells.

    `drawn` has the fit of every line, None for one that joins medians. Sentences, each with a space before
    it; empty if no line is drawn.
    """
    fits = list({id(one): one for one in drawn if one is not None}.values())
    if not fits:
        refused = (one for group in groups for one in group.refused if one.cost == cost)
        reasons = {reason_words(one.reason) for one in refused}
        why = f" No fit: {'; '.join(sorted(reasons))}." if reasons else ""
        return f"{why} Lines join the medians." if drawn else ""
    rest = " If there is no fit, lines join the medians." if None in drawn else ""
    if len(fits) > 1:
        said = "Lines are the fits, bands their 95 % intervals; the table of laws has their errors."
        return f" {said}{rest}"
    return f" Lines are the fit, bands its 95 % interval{_off(fits[0])}.{rest}"


def _off(fit: Fit) -> str:
    """Return how far a fit is off on cells that were left out, and whether it is weak."""
    errors = [
        f"{one.median_error:.1%} {where}"
        for one, where in (
            (fit.interpolation, "on cells inside"),
            (fit.extrapolation, "on the largest cells"),
        )
        if one is not None
    ]
    off = f". Left out, it is off by {' and '.join(errors)} (median)" if errors else ""
    weak = f". A weak fit: {weak_words(fit.weak)}" if fit.weak else ""
    return off + weak


def _drawn(
    inputs: ChartInputs, table: pd.DataFrame, axis: str, cost: str, colour: str | None
) -> Iterator[Fit | None]:
    """Yield the fit of every line of every choice; None if it joins medians."""
    for _, group in _choices(table, _others(inputs, axis, colour), axis):
        for _, cells in _series(group, colour):
            if cells[axis].nunique() > 1:
                yield inputs.fit(cost, _point(inputs, cells))


def _coloured(inputs: ChartInputs, table: pd.DataFrame, axis: str) -> str | None:
    """Return the axis whose values have colours: one with lines side by side in the cells that are shown first.

    Settings come before the batch, the length and the training examples; if no axis has such lines, the first
    of all is taken.
    """
    others = _others(inputs, axis)
    own = [name for name in others if name not in REQUIRED_AXES]
    main = [name for name in (BATCH, LENGTH, EXAMPLES) if name in others]
    for name in (*own, *main):
        _, first = next(_choices(table, _others(inputs, axis, name), axis))
        if (first.groupby(name)[axis].nunique() > 1).sum() > 1:
            return name
    return next(iter([*own, *main]), None)


def _others(inputs: ChartInputs, *without: str | None) -> list[str]:
    """Return the axes that tell cells of another cost apart, less those named."""
    return inputs.varying(*COSTLESS, *filter(None, without))


def _kept(table: pd.DataFrame, colour: str | None) -> pd.DataFrame:
    """Return the cells of as many series as there are colours."""
    if colour is None:
        return table
    return table[table[colour].isin(spread_out(sorted(table[colour].unique()), MOST_SERIES))]


def _draw(
    inputs: ChartInputs, table: pd.DataFrame, axis: str, cost: str, colour: str | None
) -> Chart:
    unit, said_in = unit_of(cost, table[cost]), figure_unit(cost, table[cost])
    choices = {
        label: list(_rows(inputs, group, axis, cost, colour, unit, said_in))
        for label, group in _choices(table, _others(inputs, axis, colour), axis)
    }
    drawn = {name for rows in choices.values() for row in rows for name in row}
    return finish(_chart(table, axis, cost, colour, unit, drawn), choices)


def _choices(
    table: pd.DataFrame, others: list[str], axis: str
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the cells at each value of the other axes, those with most values of the axis first."""
    groups = table.groupby(others, sort=True) if others else [((), table)]
    found = [(point_text(dict(zip(others, key, strict=True))), of) for key, of in groups]
    several = [one for one in found if one[1][axis].nunique() > 1] or found
    yield from sorted(several, key=lambda one: (-one[1][axis].nunique(), -len(one[1])))


def _rows(
    inputs: ChartInputs,
    group: pd.DataFrame,
    axis: str,
    cost: str,
    colour: str | None,
    unit: Unit,
    said_in: ByteUnit | None,
) -> Iterator[Row]:
    """Yield points and lines of one choice, one series for each value of the colour's axis."""
    for series, cells in _series(group, colour):
        for row in cells.to_dict("records"):
            yield {
                "kind": "run",
                "series": series,
                "x": row[axis],
                "y": unit.of(row[cost]),
                "said": format_figure(cost, row[cost], said_in),
                **_ends(row, cost, unit),
            }
        for at in _line(inputs, cells, axis, cost):
            ends = {end: unit.of(at[end]) for end in ("y", "low", "high") if end in at}
            yield at | ends | {"kind": "fit", "series": series}


def _ends(row: Mapping[Any, Any], cost: str, unit: Unit) -> Row:
    """Return the ends of the 95 % interval that one run alone gives its cost; empty if it gives none."""
    columns = _INTERVALS.get(cost)
    if columns is None:
        return {}
    low, high = (row[name] for name in columns)
    if pd.isna(low) or pd.isna(high) or low == high:
        return {}
    return {"least": unit.of(low), "most": unit.of(high)}


def _series(group: pd.DataFrame, colour: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the cells of each value of the colour's axis, by its name."""
    for name, cells in group.groupby(colour, sort=True) if colour else [("", group)]:
        yield format_value(name), cells


def _point(inputs: ChartInputs, cells: pd.DataFrame) -> dict[str, Any]:
    """Return the first of some cells as a point of the axes."""
    return {name: cells[name].iloc[0] for name in inputs.axes}


def _line(inputs: ChartInputs, cells: pd.DataFrame, axis: str, cost: str) -> list[Row]:
    """Return the fit over the range of the cells; their medians if there is no fit."""
    point = _point(inputs, cells)
    numbers = [float(value) for value in sorted(cells[axis].unique())]
    fit = inputs.fit(cost, point)
    if len(numbers) < 2 or fit is None:
        medians = cells.groupby(axis)[cost].median()
        rows: list[Row] = [{"x": x, "y": y} for x, y in medians.items()]
        return rows if len(numbers) > 1 else []
    found: list[Row] = []
    for x in _between(numbers):
        said = fit.predict(point | {axis: x})
        found.append({"x": x, "y": said.value, "low": max(said.low, 0.0), "high": said.high})
    return found


def _between(numbers: Sequence[float]) -> list[float]:
    """Return places from the first to the last number, in equal ratios, the numbers among them."""
    low, high = math.log(numbers[0]), math.log(numbers[-1])
    steps = [
        math.exp(low + (high - low) * i / (_LINE_POINTS - 1)) for i in range(1, _LINE_POINTS - 1)
    ]
    return sorted({*numbers, *(float(f"{step:.4g}") for step in steps)})


def _chart(
    table: pd.DataFrame, axis: str, cost: str, colour: str | None, unit: Unit, drawn: Set[str]
) -> AnyChart:
    """Return the chart of rows that have these fields: with bands and bars if any row has them."""
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN))
    x = horizontal(sorted(table[axis].unique()), axis)
    ends = [name for name in _INTERVALS.get(cost, ()) if table[name].notna().any()]
    y_scale, y_axis = vertical(
        [unit.of(value) for name in (cost, *ends) for value in table[name].dropna()]
    )
    y = alt.Y("y:Q", title=titled(cost, unit), scale=y_scale, axis=y_axis)
    listed, unlisted = _tint(table, colour)
    low = alt.Y("low:Q", scale=y_scale, title=titled(cost, unit))
    tooltip = [
        alt.Tooltip("x:Q", title=axis_word(axis), format=","),
        *([alt.Tooltip("series:N", title=axis_word(colour))] if colour else []),
        alt.Tooltip("said:N", title=FIGURE_WORDS[cost]),
    ]
    fit = base.transform_filter("datum.kind === 'fit'")
    band = fit.transform_filter("isValid(datum.low)").mark_area(opacity=0.18)
    line = fit.mark_line(strokeWidth=2)
    runs = base.transform_filter("datum.kind === 'run'").mark_point(
        filled=True, size=46, opacity=0.9
    )
    bars = base.transform_filter("isValid(datum.least)").mark_rule(strokeWidth=1.5, opacity=0.7)
    least = alt.Y("least:Q", scale=y_scale, title=titled(cost, unit))
    return alt.layer(
        *([band.encode(x=x, y=low, y2="high:Q", **unlisted)] if "low" in drawn else []),
        line.encode(x=x, y=y, **unlisted),
        *([bars.encode(x=x, y=least, y2="most:Q", **unlisted)] if "least" in drawn else []),
        runs.encode(x=x, y=y, tooltip=tooltip, **listed),
    )


def vertical(values: Sequence[float]) -> tuple[alt.Scale, alt.Axis]:
    """Return the scale and the axis of a cost, in the unit that it is shown in."""
    import altair as alt

    if spacing(values) == "linear":
        return alt.Scale(zero=False), alt.Axis(format=NUMBER, tickCount=6)
    ticks = log_ticks(values)
    scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, clamp=True)
    return scale, alt.Axis(format=NUMBER, values=ticks)


def horizontal(values: Sequence[Any], axis: str) -> alt.X:
    """Return the horizontal channel of an axis of numbers, with a mark at each value."""
    import altair as alt

    numbers = [float(value) for value in values]
    scale = alt.Scale(type="log", base=2, nice=False, padding=12)
    if spacing(numbers) == "linear":
        scale = alt.Scale(zero=False, nice=False, padding=12)
    places = alt.Axis(format=",d", values=numbers) if len(numbers) <= _LABELLED else alt.Axis()
    return alt.X("x:Q", title=axis_title(axis), scale=scale, axis=places)


def _tint(table: pd.DataFrame, colour: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (the channels of points, those of lines): colour and shape, which share a legend.

    They do if title and domain are the same. There is one colour if no axis needs any.
    """
    import altair as alt

    if colour is None:
        one = {"color": alt.value(CATEGORIES[0])}
        return one, one
    order, word = (
        [format_value(value) for value in sorted(table[colour].unique())],
        axis_word(colour),
    )
    scale = alt.Scale(domain=order)
    legend = alt.Legend(symbolOpacity=1, columns=legend_columns(order))
    tint = {"color": alt.Color("series:N", title=word, scale=scale, legend=legend)}
    return tint | {"shape": alt.Shape("series:N", title=word, scale=scale, legend=legend)}, tint
