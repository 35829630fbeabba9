"""Memory of one cell: bars of the memory of each phase, and the samples over its time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import ENVIRONMENT
from ftbench.records.invariants import untrusted_figures
from ftbench.records.readings import PHASES, Memory
from ftbench.records.record import Record
from ftbench.report.charts.inputs import ChartInputs
from ftbench.report.charts.scales import NUMBER, Unit, unit_of
from ftbench.report.charts.theme import CATEGORIES, finish, legend_columns
from ftbench.report.elements.figure import CHOSEN, Chart, ReportFigure, Row
from ftbench.report.elements.words import point_text

if TYPE_CHECKING:
    from ftbench.report.charts.theme import AnyChart

CHOOSER = "The cell with"
# Samples are thinned to the largest of so many equal parts of a cell's time.
_SAMPLES = 60
_SAMPLED = {"process_bytes": "process", "device_bytes": "device", "pss_bytes": "PSS"}
_PARTS = ("before the cell", "added by the cell", "tensors", "kept by the allocator", "context")


def cell_memory(inputs: ChartInputs) -> Iterator[ReportFigure]:
    """Yield the bars of a chosen cell, and its timeline if any cell has samples."""
    labels = _labelled(inputs)
    if not labels:
        return
    card = inputs.memory == "peak_allocated_bytes"
    what = "peak allocated, reserved and process" if card else "peak RSS"
    yield ReportFigure(
        name="memory-phases",
        title="Memory of each phase",
        caption=(
            "Tensors are peak allocated, above them what the allocator kept (reserved) and the context."
            if card
            else "Peak RSS of the worker; what it had before the cell began is Python and its libraries."
        ),
        alt=f"Bars of {what} by phase of one cell; the ledger table has the figures.",
        draw=lambda: _draw_bars(labels, card),
        chooser=CHOOSER,
    )
    if any(inputs.samples(record) is not None for record in labels.values()):
        yield ReportFigure(
            name="memory-timeline",
            title="Memory over the cell's time",
            caption="Samples of a process beside the worker; short peaks between two are not in them.",
            alt="Sampled memory of one cell over its run, coloured by phase.",
            draw=lambda: _draw_timeline(inputs, labels),
            chooser=CHOOSER,
        )


def _labelled(inputs: ChartInputs) -> dict[str, Record]:
    """Return the measured records by a label of their axes, the one that needed most memory first."""
    name = inputs.memory
    found = [
        (value, record)
        for record in inputs.records
        if record.measurement
        and (value := getattr(record.measurement.memory, name)) is not None
        and f"memory.{name}" not in untrusted_figures(record)
    ]
    found.sort(key=lambda one: -one[0])
    axes = inputs.varying()
    labels: dict[str, Record] = {}
    for _, record in found:
        label = point_text({axis: _value(record, axis) for axis in axes}) or "these settings"
        labels.setdefault(label, record)  # of several runs the one that needed most
    return labels


def _value(record: Record, axis: str) -> Any:
    return record.environment_id if axis == ENVIRONMENT else record.axis_value(axis)


def _draw_bars(labels: Mapping[str, Record], card: bool) -> Chart:
    tops = [r.measurement.memory.model_dump().values() for r in labels.values() if r.measurement]
    unit = unit_of("memory_bytes", [value or 0 for values in tops for value in values])
    choices = {label: list(_bars(record, card, unit)) for label, record in labels.items()}
    used = {row["part"] for rows in choices.values() for row in rows}
    return finish(_bar_chart([part for part in _PARTS if part in used], unit), choices, height=220)


def _bars(record: Record, card: bool, unit: Unit) -> Iterator[Row]:
    measured = record.measurement
    assert measured is not None
    paths = (path.split(".") for path in untrusted_figures(record))
    left_out = {name: None for first, *rest in paths if first == "memory" for name in rest}
    for place, phase in enumerate(name for name in PHASES if name in measured.phases):
        memory = measured.phases[phase].memory.model_copy(update=left_out)
        parts = _card_parts(memory) if card else _host_parts(memory, measured.idle)
        for part, nbytes in parts.items():
            yield {
                "phase": phase.replace("_", " "),
                "place": place,
                "part": part,
                "order": _PARTS.index(part),
                "value": unit.of(nbytes),
            }


def _host_parts(memory: Memory, idle: Memory) -> dict[str, int]:
    """Return peak RSS in two parts: that before the cell, and the rest."""
    if memory.peak_rss_bytes is None:
        return {}
    before = min(idle.peak_rss_bytes or 0, memory.peak_rss_bytes)
    return {"before the cell": before, "added by the cell": memory.peak_rss_bytes - before}


def _card_parts(memory: Memory) -> dict[str, int]:
    """Return a card's memory from the inside out: tensors, the allocator's, the context."""
    held, reserved = memory.peak_allocated_bytes, memory.peak_reserved_bytes
    parts = {
        "tensors": held,
        "kept by the allocator": None if held is None or reserved is None else reserved - held,
        "context": memory.context_bytes,
    }
    return {name: nbytes for name, nbytes in parts.items() if nbytes is not None}


def _bar_chart(parts: list[str], unit: Unit) -> AnyChart:
    import altair as alt

    chart: AnyChart = (
        alt.Chart(alt.NamedData(CHOSEN))
        .mark_bar(cornerRadiusEnd=2, height={"band": 0.72})
        .encode(
            x=alt.X(
                "value:Q", title=f"memory ({unit.name})", axis=alt.Axis(format=NUMBER, tickCount=6)
            ),
            y=alt.Y("phase:N", title=None, sort=alt.SortField("place"), axis=alt.Axis(grid=False)),
            color=alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=parts, range=["#8a8f98", *CATEGORIES][: len(parts)]),
                legend=alt.Legend(columns=legend_columns(parts)),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("phase:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("value:Q", title=unit.name, format=NUMBER),
            ],
        )
    )
    return chart


def _draw_timeline(inputs: ChartInputs, labels: Mapping[str, Record]) -> Chart:
    samples = {label: inputs.samples(record) for label, record in labels.items()}
    sampled = {label: _sampled(of) for label, of in samples.items()}
    tops = [
        float(of[column].max())
        for label, of in samples.items()
        if of is not None and (column := sampled[label])
    ]
    unit = unit_of("memory_bytes", tops)
    choices = {label: list(_timeline(of, sampled[label], unit)) for label, of in samples.items()}
    return finish(_timeline_chart(unit), choices, height=220)


def _sampled(samples: pd.DataFrame | None) -> str | None:
    """Return the column of the reading that samples have; None if they have none."""
    if samples is None:
        return None
    return next((name for name in _SAMPLED if samples[name].notna().any()), None)


def _timeline(samples: pd.DataFrame | None, column: str | None, unit: Unit) -> Iterator[Row]:
    """Yield the largest sample of each of equal parts of a cell's time, in seconds from its start."""
    if samples is None or column is None:
        return
    found = samples.dropna(subset=[column]).sort_values("t_s")
    seconds = (found["t_s"] - found["t_s"].iloc[0]).astype(float)
    width = max(float(seconds.iloc[-1]) / _SAMPLES, 1e-9)
    parts = (seconds / width).astype(int).clip(upper=_SAMPLES - 1)
    tops = found[column].astype(float).groupby(parts).idxmax()
    for at in tops:
        yield {
            "t": round(float(seconds[at]), 3),
            "value": unit.of(float(found.loc[at, column])),
            "phase": str(found.loc[at, "phase"]).replace("_", " "),
            "figure": _SAMPLED[column],
        }


def _timeline_chart(unit: Unit) -> AnyChart:
    import altair as alt

    phases = [name.replace("_", " ") for name in PHASES]
    base = alt.Chart(alt.NamedData(CHOSEN)).encode(
        x=alt.X(
            "t:Q", title="time since the first sample (s)", axis=alt.Axis(format=",~r", tickCount=6)
        ),
        y=alt.Y(
            "value:Q",
            title=f"sampled memory ({unit.name})",
            axis=alt.Axis(format=NUMBER, tickCount=5),
        ),
    )
    tint: Any = alt.Color(
        "phase:N",
        title=None,
        scale=alt.Scale(domain=phases, range=list(CATEGORIES[: len(phases)])),
        legend=alt.Legend(columns=legend_columns(phases)),
    )
    tooltip = [
        alt.Tooltip("t:Q", title="seconds", format=",.1f"),
        alt.Tooltip("value:Q", title=unit.name, format=NUMBER),
        alt.Tooltip("phase:N"),
        alt.Tooltip("figure:N", title="reading"),
    ]
    return alt.layer(
        base.mark_area(opacity=0.12, color="currentColor", line=False),
        base.mark_line(strokeWidth=1, opacity=0.5, color="currentColor"),
        base.mark_point(filled=True, size=36).encode(color=tint, tooltip=tooltip),
    )
