"""Figures: peaks along length, the share of model state, and peaks along parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ftbench.base.units import GIB, format_bytes
from ftbench.report.charts.scales import NUMBER, log_ticks
from ftbench.report.charts.theme import INK, finish
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from studies.memory_claim.growth import BYTES_PER_PARAMETER, ClaimData, SeriesSetting, Size
from studies.memory_claim.names import MODELS, settings_of, share_text, variant

if TYPE_CHECKING:
    import altair as alt

BATCH = 8
_STATE = "model state"
SIZE_SHAPES = ((8, 128), (32, 128))  # batch, length


def length_figure(answers: ClaimData, model: str) -> ReportFigure:
    """Return a model's peaks by length, one line per setting, both axes logarithmic."""
    settings = [setting for setting in settings_of(answers, model) if setting.batch == BATCH]
    rows = list(_length_rows(answers, settings))
    ends = [answers.series[setting][-1] for setting in settings]
    worst = max(ends, key=lambda peak: peak.total_bytes)
    least = min(ends, key=lambda peak: peak.total_bytes)
    return ReportFigure(
        name=f"length-{model}",
        title=f"{MODELS[model].name} at batch {BATCH}: peak memory along length",
        caption=(
            "Both axes are logarithmic: from one mark of length to the next, linear growth doubles the peak,"
            " quadratic growth quadruples it; a flat line is model state only. Dashed: with gradient checkpointing."
        ),
        alt=(
            f"Predicted peak of {MODELS[model].name} by length. At length {worst.length:,} it is between"
            f" {format_bytes(least.total_bytes)} and {format_bytes(worst.total_bytes)}; the tables have"
            " every figure."
        ),
        draw=lambda: _draw_lengths(rows),
    )


def _length_rows(answers: ClaimData, settings: Sequence[SeriesSetting]) -> Iterator[Row]:
    for setting in settings:
        plain = variant(setting).removesuffix(", checkpointing")
        for peak in answers.series[setting]:
            yield {
                "x": peak.length,
                "y": float(f"{peak.total_bytes / GIB:.6g}"),
                "series": plain,
                "checkpointing": "on" if setting.checkpointing else "off",
                "said": format_bytes(peak.total_bytes),
            }


def _draw_lengths(rows: Sequence[Row]) -> Chart:
    import altair as alt

    tint, marks = _colour_and_shape(rows, "attention", columns=4)
    base = alt.Chart(alt.NamedData(CHOSEN)).encode(
        x=_lengths(rows),
        y=_gib(rows),
        color=tint,
        tooltip=[
            alt.Tooltip("series:N", title="attention"),
            alt.Tooltip("checkpointing:N"),
            alt.Tooltip("x:Q", title="length", format=","),
            alt.Tooltip("said:N", title="peak"),
        ],
    )
    dash = alt.StrokeDash(
        "checkpointing:N",
        scale=alt.Scale(domain=["off", "on"], range=[[1, 0], [5, 4]]),
        legend=alt.Legend(symbolStrokeColor=INK, symbolType="stroke"),
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=dash)
    points = base.mark_point(filled=True, size=40, opacity=0.9).encode(shape=marks)
    return finish(alt.layer(lines, points), rows, height=320)


def _colour_and_shape(
    rows: Sequence[Row], title: str | None, columns: int
) -> tuple[alt.Color, alt.Shape]:
    """Return colour and shape of the series; with one title and domain they share a legend."""
    import altair as alt

    scale = alt.Scale(domain=list(dict.fromkeys(row["series"] for row in rows)))
    legend = alt.Legend(symbolOpacity=1, columns=columns, labelLimit=240)
    return (
        alt.Color("series:N", title=title, scale=scale, legend=legend),
        alt.Shape("series:N", title=title, scale=scale, legend=legend),
    )


def _lengths(rows: Sequence[Row]) -> alt.X:
    """Return the horizontal channel of lengths, with a mark at each power of two."""
    import altair as alt

    lengths = sorted({row["x"] for row in rows})
    return alt.X(
        "x:Q",
        title="sequence length (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=12),
        axis=alt.Axis(format=",d", values=[x for x in lengths if x.bit_count() == 1]),
    )


def _gib(rows: Sequence[Row]) -> alt.Y:
    """Return the vertical channel of peaks: logarithmic, from and to a labelled value."""
    import altair as alt

    ticks = log_ticks([row["y"] for row in rows])
    scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
    axis = alt.Axis(format=NUMBER, values=ticks)
    return alt.Y("y:Q", title="peak of tensors (GiB)", scale=scale, axis=axis)


def share_figure(answers: ClaimData) -> ReportFigure:
    """Return the share of model state along length, of both models."""
    rows: list[Row] = [
        {
            "x": peak.length,
            "y": round(peak.state_share, 4),
            "series": f"{MODELS[model].name}, {setting.attention}",
        }
        for model in MODELS
        for setting in settings_of(answers, model)
        if setting.batch == BATCH and setting.padded and not setting.checkpointing
        for peak in answers.series[setting]
    ]
    last = {row["series"]: row["y"] for row in rows}
    said = "; ".join(f"{name}: {share_text(share)}" for name, share in last.items())
    return ReportFigure(
        name="state-share",
        title=f"Parameters, gradients and optimizer state as a share of the peak, at batch {BATCH}",
        caption="Without checkpointing, batches with padding. Gradients that do not exist yet do not count.",
        alt=f"The share of model state falls with length. At the longest: {said}.",
        draw=lambda: _draw_shares(rows),
    )


def _draw_shares(rows: Sequence[Row]) -> Chart:
    import altair as alt

    tint, marks = _colour_and_shape(rows, None, columns=2)
    y = alt.Y(
        "y:Q",
        title="share of model state",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=5),
    )
    base = alt.Chart(alt.NamedData(CHOSEN)).encode(x=_lengths(rows), y=y, color=tint)
    points = base.mark_point(filled=True, size=40, opacity=0.9).encode(shape=marks)
    return finish(alt.layer(base.mark_line(strokeWidth=2), points), rows)


def sizes_figure(answers: ClaimData) -> ReportFigure:
    """Return peaks along parameters, with the line of model state alone."""
    rows = list(_size_rows(answers.family))
    first, last = answers.family[0], answers.family[-1]
    return ReportFigure(
        name="parameters",
        title=f"Peak memory along parameters: {len(answers.family)} sizes of BERT",
        caption=(
            f"Both axes are logarithmic. Model state is {BYTES_PER_PARAMETER} bytes per parameter: no peak can lie"
            " below the line; the part above it is activations."
        ),
        alt=(
            f"Peaks of BERT {first.name} ({first.parameters / 1e6:.1f} M parameters) to {last.name}"
            f" ({last.parameters / 1e6:.0f} M), beside {BYTES_PER_PARAMETER} bytes per parameter."
        ),
        draw=lambda: _draw_sizes(rows),
    )


def _size_rows(sizes: Sequence[Size]) -> Iterator[Row]:
    for size in sizes:
        state = BYTES_PER_PARAMETER * size.parameters
        figures = {
            f"batch {batch}, length {length}": size.peaks[batch, length].total_bytes
            for batch, length in SIZE_SHAPES
        }
        for series, nbytes in {**figures, _STATE: state}.items():
            yield {
                "x": float(f"{size.parameters / 1e6:.6g}"),
                "y": float(f"{nbytes / GIB:.6g}"),
                "series": series,
                "name": size.name,
                "said": format_bytes(nbytes),
            }


def _draw_sizes(rows: Sequence[Row]) -> Chart:
    import altair as alt

    tint, marks = _colour_and_shape(rows, None, columns=3)
    x = alt.X(
        "x:Q",
        title="parameters (millions)",
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=alt.Axis(format=NUMBER, values=log_ticks([row["x"] for row in rows])[1:-1]),
    )
    tooltip = [
        alt.Tooltip("name:N", title="model"),
        alt.Tooltip("series:N"),
        alt.Tooltip("said:N", title="peak"),
    ]
    base = alt.Chart(alt.NamedData(CHOSEN)).encode(x=x, y=_gib(rows), tooltip=tooltip)
    lines = base.mark_line(strokeWidth=2).encode(color=tint)
    points = base.mark_point(filled=True, size=46, opacity=0.9).encode(color=tint, shape=marks)
    names = base.transform_filter(f"datum.series === '{_STATE}'").mark_text(dx=8, dy=14)
    return finish(alt.layer(lines, points, names.encode(text="name:N")), rows, height=320)
