"""Largest batch: by length, as measured by `ftbench frontier` and as predicted for cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftbench.base.units import format_bytes
from ftbench.execute.next_batch import edge
from ftbench.plan.settings import NOT_SEARCHED
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.prediction import LargestBatch
from ftbench.report.charts.curves import horizontal, vertical
from ftbench.report.charts.scales import axis_title
from ftbench.report.charts.theme import finish, legend_columns
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row

if TYPE_CHECKING:
    from ftbench.report.charts.theme import AnyChart

_TRIED = NOT_SEARCHED | {"max_length"}


def largest(
    tries: Sequence[BatchProbe], predicted: Sequence[LargestBatch]
) -> Iterator[ReportFigure]:
    """Yield the largest batch by length, if anything was tried or predicted."""
    rows = [*_measured(tries), *_predicted(predicted)]
    if not rows:
        return
    names = sorted({row["series"] for row in rows})
    yield ReportFigure(
        name="largest-batch",
        title="The largest batch that fits",
        caption=(
            "Lines join what surely fits; a bar above a point reaches to what may fit."
            if predicted
            else "Found by trying: two optimizer steps under the limit, and one example more that fails."
        ),
        alt=f"Largest batch by sequence length for {', '.join(names)}.",
        draw=lambda: _draw(rows),
    )


def _measured(tries: Sequence[BatchProbe]) -> Iterator[Row]:
    """Yield the largest batch that was tried and fitted, by length, limit and the other settings."""
    groups: dict[tuple[str, int], list[BatchProbe]] = {}
    for one in tries:
        facets = {name: value for name, value in one.cell.facets.items() if name not in _TRIED}
        groups.setdefault((repr((one.limit_bytes, facets)), one.cell.max_length), []).append(one)
    for (_, length), of in groups.items():
        fits = edge(of).fits
        if fits is not None:
            name = f"measured, {format_bytes(fits.limit_bytes)}"
            yield {"x": length, "y": fits.batch, "series": name}


def _predicted(predicted: Sequence[LargestBatch]) -> Iterator[Row]:
    for one in predicted:
        if one.certain > 0:
            row = {"x": one.max_length, "y": one.certain, "series": f"{one.gpu}, predicted"}
            yield row | ({"possible": one.possible} if one.possible > one.certain else {})


def _draw(rows: Sequence[Row]) -> Chart:
    return finish(_chart(rows), sorted(rows, key=lambda row: (row["series"], row["x"])))


def _chart(rows: Sequence[Row]) -> AnyChart:
    import altair as alt

    base = alt.Chart(alt.NamedData(CHOSEN))
    x = horizontal(sorted({row["x"] for row in rows}), "max_length")
    scale, y_axis = vertical(
        [row.get("possible", row["y"]) for row in rows] + [row["y"] for row in rows]
    )
    title = f"largest {axis_title('per_device_train_batch_size')}"
    y = alt.Y("y:Q", title=title, scale=scale, axis=y_axis)
    names = sorted({row["series"] for row in rows})
    legend = alt.Legend(columns=legend_columns(names))
    scale = alt.Scale(domain=names)  # of one domain, colours and shapes share a legend
    tint = alt.Color("series:N", title=None, legend=legend, scale=scale)
    tooltip = [
        alt.Tooltip("series:N", title="card"),
        alt.Tooltip("x:Q", title="length"),
        alt.Tooltip("y:Q", title="batch"),
    ]
    return alt.layer(
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=tint),
        base.transform_filter("isValid(datum.possible)")
        .mark_rule(strokeWidth=2, opacity=0.6)
        .encode(x=x, y=y, y2="possible:Q", color=tint),
        base.mark_point(filled=True, size=60).encode(
            x=x,
            y=y,
            color=tint,
            shape=alt.Shape("series:N", title=None, legend=legend, scale=scale),
            tooltip=tooltip,
        ),
    )
