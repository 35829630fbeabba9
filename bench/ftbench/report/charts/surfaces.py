"""Surfaces: memory and time over length and batch, as heat maps with their figures in them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftbench.base.units import ByteUnit, three_digits
from ftbench.report.charts.inputs import ChartInputs
from ftbench.report.charts.scales import (
    NUMBER,
    Unit,
    axis_title,
    log_ticks,
    spacing,
    titled,
    unit_of,
)
from ftbench.report.charts.theme import finish
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from ftbench.report.elements.tables import figure_texts, figure_unit, format_figure
from ftbench.report.elements.words import FIGURE_WORDS, point_text

if TYPE_CHECKING:
    from ftbench.report.charts.theme import AnyChart

LENGTH, BATCH = "max_length", "per_device_train_batch_size"
# From here on (of the way from the least to the most) viridis is light, and its text dark.
_LIGHT_FROM = 0.6
_ROW_HEIGHT = 34
_CHARACTERS_WIDE, _LEAST_FONT = 3.4, 7  # of a field in its text's size; pixels
CHOOSER = "Cells with"


def surfaces(inputs: ChartInputs) -> Iterator[ReportFigure]:
    """Yield a heat map of memory and one of step time, if two lengths and two batches were run."""
    table = inputs.finished
    if table[LENGTH].nunique() < 2 or table[BATCH].nunique() < 2:
        return
    for cost in (inputs.memory, "step_median_s"):
        if table[cost].notna().any():
            yield _surface(inputs, cost)


def _surface(inputs: ChartInputs, cost: str) -> ReportFigure:
    word = FIGURE_WORDS[cost] if cost.endswith("_bytes") else "step time"
    values = inputs.finished[cost].dropna()
    low, high = figure_texts(cost, (values.min(), values.max()))
    return ReportFigure(
        name=f"surface-{'memory' if cost.endswith('_bytes') else 'step-time'}",
        title=f"{word[0].upper()}{word[1:]} over length and batch",
        caption="Each field is the median over the runs of its cell; an empty field was not run.",
        alt=(f"Heat map of {word} over sequence length and batch size, from {low} to {high}."),
        draw=lambda: _draw(inputs, cost),
        chooser=CHOOSER,
    )


def _draw(inputs: ChartInputs, cost: str) -> Chart:
    table = inputs.finished.dropna(subset=[cost])
    unit = unit_of(cost, table[cost])
    choices = dict(_choices(table, inputs.varying(LENGTH, BATCH), cost, unit))
    batches = table[BATCH].nunique()
    values = [unit.of(value) for value in table[cost]]
    return finish(_chart(cost, unit, values), choices, height=_ROW_HEIGHT * max(3, batches))


def _choices(
    table: pd.DataFrame, others: list[str], cost: str, unit: Unit
) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows for each value of the other axes, those with the most fields first."""
    said_in = figure_unit(cost, table[cost])
    groups = table.groupby(others, sort=True) if others else [((), table)]
    found = [(point_text(dict(zip(others, key, strict=True))), of) for key, of in groups]
    for label, group in sorted(found, key=lambda one: -len(one[1].groupby([LENGTH, BATCH]))):
        yield label or "all", list(_rows(group, cost, unit, spacing(list(table[cost])), said_in))


def _rows(
    group: pd.DataFrame, cost: str, unit: Unit, spaced: str, said_in: ByteUnit | None
) -> Iterator[Row]:
    runs_of = group.groupby([LENGTH, BATCH], sort=True)[cost]
    fields: dict[Any, pd.Series[float]] = dict(iter(runs_of))
    values = {key: float(runs.median()) for key, runs in fields.items()}
    place = math.log if spaced == "log" else float
    least, most = place(min(values.values())), place(max(values.values()))
    for (length, batch), value in values.items():
        share = (place(value) - least) / ((most - least) or 1)
        yield {
            "length": int(length),
            "batch": int(batch),
            "value": unit.of(value),
            "text": three_digits(value / unit.size),
            "light": share > _LIGHT_FROM,
            "said": format_figure(cost, value, said_in),
            "runs": len(fields[length, batch]),
        }


def _chart(cost: str, unit: Unit, values: list[float]) -> AnyChart:
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN)).encode(
        x=alt.X("length:O", title=axis_title(LENGTH), axis=alt.Axis(labelAngle=0, grid=False)),
        y=alt.Y("batch:O", title=axis_title(BATCH), sort="descending", axis=alt.Axis(grid=False)),
    )
    logarithmic = spacing(values) == "log"
    ticks = log_ticks(values)[1:-1] if logarithmic else None
    legend = alt.Legend(gradientLength=200, format=NUMBER, tickCount=4, titleLimit=260)
    if ticks:
        legend = alt.Legend(gradientLength=200, format=NUMBER, values=ticks, titleLimit=260)
    colour = alt.Color(
        "value:Q",
        title=titled(cost, unit),
        scale=alt.Scale(scheme="viridis", type="log" if logarithmic else "linear"),
        legend=legend,
    )
    tooltip = [
        alt.Tooltip("length:O", title="length"),
        alt.Tooltip("batch:O", title="batch"),
        alt.Tooltip("said:N", title=FIGURE_WORDS[cost]),
        alt.Tooltip("runs:Q", title="runs"),
    ]
    fields = base.mark_rect(cornerRadius=3, stroke="transparent", strokeWidth=2)
    # As large as five characters have room for; left out if nobody could read them.
    size = f"min(12, bandwidth('x') / {_CHARACTERS_WIDE})"
    shown = alt.ExprRef(f"{size} < {_LEAST_FONT} ? 0 : 1")
    texts = base.mark_text(fontSize=alt.ExprRef(size), opacity=shown).encode(
        text="text:N",
        color=alt.condition("datum.light", alt.value("#111111"), alt.value("#ffffff")),
    )
    return alt.layer(fields.encode(color=colour, tooltip=tooltip), texts)
