"""Curves: how a cost goes along an axis; every run as a point, the fit as a line with its 95 % band."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.profile import REQUIRED_AXES
from bench.report.charts.material import Material, described, plain
from bench.report.charts.scales import (
    NUMBER,
    Unit,
    axis_title,
    spacing,
    spread_out,
    titled,
    unit_of,
)
from bench.report.charts.theme import finish
from bench.report.figure import CHOSEN, Drawing, Figure, Row
from bench.report.tables import FIGURE_WORDS, axis_word, format_figure

if TYPE_CHECKING:
    import altair as alt

    from bench.report.charts.theme import AnyChart

LENGTH, BATCH, DOCUMENTS = REQUIRED_AXES
CHOOSER = "Curves at"
# As many as there are colours that can be told apart.
MOST_SERIES = 6
_LINE_POINTS = 24
_COST_WORDS = {"step_median_s": "Step time", "total_s": "Total time"}
_LABELLED = 10  # values of an axis that are all labelled; where there are more, the chart chooses


def curves(material: Material) -> Iterator[Figure]:
    """Yield a figure for each cost and axis that is worth one: the axis has two values or more."""
    memory = material.memory
    wanted = [
        (LENGTH, "step_median_s"),
        (LENGTH, memory),
        (BATCH, "step_median_s"),
        (BATCH, memory),
        (DOCUMENTS, "total_s"),
    ]
    for axis, cost in wanted:
        found = material.finished.dropna(subset=[cost])
        if found[axis].nunique() > 1:
            yield _curve(material, axis, cost)


def _curve(material: Material, axis: str, cost: str) -> Figure:
    colour = _coloured(material, axis)
    word = _COST_WORDS.get(cost) or FIGURE_WORDS[cost].replace("peak", "Peak")
    values = material.finished.dropna(subset=[cost])
    fitted = any(cost in group.fits for group in material.groups)
    lines = "Lines are the fit, bands its 95 % interval" if fitted else "Lines join the medians"
    many = values[colour].nunique() if colour else 0
    some = f" {MOST_SERIES} of {many} are drawn." if many > MOST_SERIES else ""
    low, high = (
        values.loc[values[axis] == end, cost].median()
        for end in (min(values[axis]), max(values[axis]))
    )
    return Figure(
        name=f"{cost.removesuffix('_s').removesuffix('_bytes').replace('_', '-')}-{axis_word(axis)}",
        title=f"{word} along {axis_word(axis)}",
        caption=f"Points are runs. {lines}.{some}",
        alt=(
            f"{word} along {axis_word(axis)} {min(values[axis])} to {max(values[axis])}: medians over"
            f" all cells from {format_figure(cost, low)} to {format_figure(cost, high)}."
        ),
        draw=lambda: _draw(material, axis, cost, colour),
        chooser=f"{CHOOSER[:-3]} along {axis_word(axis)} at",
    )


def _coloured(material: Material, axis: str) -> str | None:
    """Return the axis that colours tell apart: one that is no number of documents first."""
    others = material.varying(axis)
    own = [name for name in others if name not in REQUIRED_AXES]
    main = [name for name in (BATCH, LENGTH, DOCUMENTS) if name in others]
    return next(iter([*own, *main]), None)


def _draw(material: Material, axis: str, cost: str, colour: str | None) -> Drawing:
    table = material.finished.dropna(subset=[cost])
    unit = unit_of(cost, table[cost])
    others = [name for name in material.varying(axis) if name != colour]
    choices = {
        label: list(_rows(material, group, axis, cost, colour, unit))
        for label, group in _choices(table, others, axis)
    }
    return finish(_chart(table, axis, cost, colour, unit), choices)


def _choices(
    table: pd.DataFrame, others: list[str], axis: str
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the cells at each value of the other axes, those with most values of the axis first."""
    groups = table.groupby(others, sort=True) if others else [((), table)]
    found = [(described(dict(zip(others, key, strict=True))), of) for key, of in groups]
    several = [one for one in found if one[1][axis].nunique() > 1] or found
    yield from sorted(several, key=lambda one: (-one[1][axis].nunique(), -len(one[1])))


def _rows(
    material: Material, group: pd.DataFrame, axis: str, cost: str, colour: str | None, unit: Unit
) -> Iterator[Row]:
    """Yield points and lines of one choice: at most as many series as there are colours."""
    series = list(group.groupby(colour, sort=True)) if colour else [("", group)]
    if len(series) > MOST_SERIES:
        series = [series[int(i)] for i in spread_out(range(len(series)), MOST_SERIES)]
    for value, cells in series:
        name = plain(value)
        for row in cells.to_dict("records"):
            yield {
                "kind": "run",
                "series": name,
                "x": row[axis],
                "y": unit.of(row[cost]),
                "said": format_figure(cost, row[cost]),
            }
        for at in _line(material, cells, axis, cost):
            ends = {end: unit.of(at[end]) for end in ("y", "low", "high") if end in at}
            yield at | ends | {"kind": "fit", "series": name}


def _line(material: Material, cells: pd.DataFrame, axis: str, cost: str) -> list[Row]:
    """Return the fit over the range of the cells; their medians where there is no fit."""
    point: dict[str, Any] = {name: cells[name].iloc[0] for name in material.axes}
    numbers = [float(value) for value in sorted(cells[axis].unique())]
    if len(numbers) < 2 or material.predicted(cost, point) is None:
        medians = cells.groupby(axis)[cost].median()
        rows: list[Row] = [{"x": x, "y": y} for x, y in medians.items()]
        return rows if len(numbers) > 1 else []
    found: list[Row] = []
    for x in _between(numbers):
        said = material.predicted(cost, point | {axis: x})
        assert said is not None
        found.append({"x": x, "y": said.value, "low": max(said.low, 0.0), "high": said.high})
    return found


def _between(numbers: Sequence[float]) -> list[float]:
    """Return places from the first to the last number, in equal ratios, the numbers among them."""
    low, high = math.log(numbers[0]), math.log(numbers[-1])
    steps = [
        math.exp(low + (high - low) * i / (_LINE_POINTS - 1)) for i in range(1, _LINE_POINTS - 1)
    ]
    return sorted({*numbers, *(float(f"{step:.4g}") for step in steps)})


def _chart(table: pd.DataFrame, axis: str, cost: str, colour: str | None, unit: Unit) -> AnyChart:
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN))
    x = horizontal(sorted(table[axis].unique()), axis)
    values = [float(value) for value in table[cost]]
    y_scale = alt.Scale(type="log") if spacing(values) == "log" else alt.Scale(zero=False)
    y_axis = alt.Axis(format=NUMBER, tickCount=6)
    y = alt.Y("y:Q", title=titled(cost, unit), scale=y_scale, axis=y_axis)
    tint: Mapping[str, Any] = _tint(table, colour)
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
    shape: Mapping[str, Any] = {}
    if colour:
        word = axis_word(colour)
        shape = {"shape": alt.Shape("series:N", sort=_order(table, colour), title=word)}
    return alt.layer(
        band.encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", **tint),
        line.encode(x=x, y=y, **tint),
        runs.encode(x=x, y=y, tooltip=tooltip, **tint, **shape),
    )


def horizontal(values: Sequence[Any], axis: str) -> alt.X:
    """Return the horizontal channel of an axis of numbers, with a mark at each value."""
    import altair as alt

    numbers = [float(value) for value in values]
    scale = alt.Scale(type="log", base=2, nice=False, padding=12)
    if spacing(numbers) == "linear":
        scale = alt.Scale(zero=False, nice=False, padding=12)
    places = alt.Axis(format=",d", values=numbers) if len(numbers) <= _LABELLED else alt.Axis()
    return alt.X("x:Q", title=axis_title(axis), scale=scale, axis=places)


def _tint(table: pd.DataFrame, colour: str | None) -> dict[str, Any]:
    """Return the colour channel; one colour where no axis needs any."""
    import altair as alt

    from bench.report.charts.theme import CATEGORIES

    if colour is None:
        return {"color": alt.value(CATEGORIES[0])}
    return {"color": alt.Color("series:N", sort=_order(table, colour), title=axis_word(colour))}


def _order(table: pd.DataFrame, colour: str | None) -> list[str]:
    return [] if colour is None else [plain(value) for value in sorted(table[colour].unique())]
