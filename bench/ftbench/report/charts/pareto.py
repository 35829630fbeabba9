"""Pareto: the score against cost, every cell a point, those that none dominates joined by a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftbench.analysis.comparisons.guessing import GUESSING
from ftbench.analysis.comparisons.pareto import standings
from ftbench.base.units import counted
from ftbench.report.charts.curves import vertical
from ftbench.report.charts.inputs import ChartInputs
from ftbench.report.charts.scales import NUMBER, Unit, titled, unit_of
from ftbench.report.charts.theme import CATEGORIES, finish, legend_columns
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from ftbench.report.elements.tables import figure_texts
from ftbench.report.elements.words import FIGURE_WORDS, point_text

if TYPE_CHECKING:
    from ftbench.report.charts.theme import AnyChart

STANDINGS = ("front", "not distinguishable", "dominated", GUESSING)
_DOMINATED = " A dominated cell is beaten by one that costs no more."
_NOTES = {"total_s": " Money at an hourly price is proportional to time: its front is the same."}


def pareto(inputs: ChartInputs) -> Iterator[ReportFigure]:
    """Yield the score against total time and against memory, if three cells have both."""
    for cost in ("total_s", inputs.memory):
        cells = ranked(inputs, cost)
        if len(cells) > 2:
            yield _figure(inputs, cost, cells)


def ranked(inputs: ChartInputs, cost: str) -> pd.DataFrame:
    """Return every cell that has a score and a cost, with its standing."""
    return standings(inputs.table, cost, inputs.axes)


def _figure(inputs: ChartInputs, cost: str, cells: pd.DataFrame) -> ReportFigure:
    score = inputs.score.word
    word = FIGURE_WORDS[cost] if cost.endswith("_bytes") else "total time"
    front = cells[cells["standing"] == "front"]
    return ReportFigure(
        name=f"pareto-{'memory' if cost.endswith('_bytes') else 'time'}",
        title=f"{score[:1].upper()}{score[1:]} against {word}",
        caption=(
            f"The line joins the front: cells whose {score} is above that of every cheaper cell by more than noise."
            f"{_DOMINATED if (cells['standing'] == 'dominated').any() else ''}"
            f" Bars are 95 % intervals.{_NOTES.get(cost, '')}"
        ),
        alt=(
            f"{score} against {word}: the front has {len(front)} of {counted(len(cells), 'cell')}"
            f"{_ends(cost, front)}."
        ),
        draw=lambda: _draw(inputs, cost, cells),
    )


def _ends(cost: str, front: pd.DataFrame) -> str:
    """Return the ends of the front as the end of a sentence; empty if no cell is on it."""
    if front.empty:
        return ""
    ends = front.iloc[[0, -1]]
    first, last = (
        f"{score:.3f} at {text}"
        for score, text in zip(ends["score"], figure_texts(cost, ends["cost"]), strict=True)
    )
    return f", from {first} to {last}"


def _draw(inputs: ChartInputs, cost: str, cells: pd.DataFrame) -> Chart:
    unit, axes = unit_of(cost, cells["cost"]), inputs.varying()
    rows = [
        _row(row, axes, unit, said)
        for row, said in zip(
            cells.to_dict("records"), figure_texts(cost, cells["cost"]), strict=True
        )
    ]
    return finish(_chart(inputs.score.word, cost, unit, [row["x"] for row in rows]), rows)


def _row(row: dict[Any, Any], axes: list[str], unit: Unit, said: str) -> Row:
    ends = {
        end: round(row[f"score_{end}"], 4)
        for end in ("low", "high")
        if pd.notna(row[f"score_{end}"])
    }
    return {
        "x": unit.of(row["cost"]),
        "y": round(row["score"], 5),
        "standing": row["standing"],
        "cell": point_text({axis: row[axis] for axis in axes}),
        "said": said,
        **ends,
    }


def _chart(score: str, cost: str, unit: Unit, costs: list[float]) -> AnyChart:
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN))
    x_scale, x_axis = vertical(costs)
    x = alt.X("x:Q", title=titled(cost, unit), scale=x_scale, axis=x_axis)
    y_scale = alt.Scale(zero=False)
    y = alt.Y("y:Q", title=score, scale=y_scale, axis=alt.Axis(format=NUMBER))
    legend = alt.Legend(columns=legend_columns(STANDINGS))
    tint = alt.Color(
        "standing:N",
        title=None,
        legend=legend,
        scale=alt.Scale(
            domain=list(STANDINGS), range=[CATEGORIES[1], CATEGORIES[3], "#8a8f98", "#c9a0a0"]
        ),
    )
    tooltip = [
        alt.Tooltip("cell:N", title="cell"),
        alt.Tooltip("y:Q", title=score, format=".3f"),
        alt.Tooltip("said:N", title=FIGURE_WORDS[cost]),
        alt.Tooltip("standing:N", title="standing"),
    ]
    shape = alt.Shape(
        "standing:N", title=None, legend=legend, scale=alt.Scale(domain=list(STANDINGS))
    )
    on_front = base.transform_filter("datum.standing === 'front'")
    return alt.layer(
        on_front.mark_line(interpolate="step-after", strokeWidth=2, color=CATEGORIES[1]).encode(
            x=x, y=y
        ),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.5, opacity=0.4)
        .encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=tint),
        base.mark_point(filled=True, opacity=0.85).encode(
            x=x,
            y=y,
            color=tint,
            shape=shape,
            size=alt.condition(
                "indexof(['front', 'not distinguishable'], datum.standing) < 0",
                alt.value(28),
                alt.value(80),
            ),
            tooltip=tooltip,
        ),
    )
