"""Tables as text: which columns, which words, which units. Rendered by `render/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.tables.axis_series import AxisSeries
from ftbench.analysis.tables.cells_table import headline_memory
from ftbench.base.units import (
    ByteUnit,
    byte_unit,
    format_bytes,
    format_ratio,
    format_seconds,
    format_value,
)
from ftbench.plan.scores import HEADLINES, SCORES
from ftbench.records.figures import BY_NAME, FIGURES, READINGS
from ftbench.records.invariants import untrusted_figures
from ftbench.records.record import Record
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import FIGURE_WORDS, axis_word

_THREE_DIGITS = {"eval_loss", *(kind.column for kind in SCORES)}
_MEMORY = (
    "peak_allocated_bytes",
    "peak_rss_bytes",
)  # that which stands for a run is the first it has
# What a narrow terminal does without, the first of them first.
_OPTIONAL = tuple(
    figure.name for figure in sorted(FIGURES, key=lambda one: one.narrow) if figure.narrow
)


def format_figure(name: str, value: Any, byte_unit: ByteUnit | None = None) -> str:
    """Return a figure as text, with its unit; a dash if it is absent. Memory may be told in a given unit."""
    if value is None or pd.isna(value):
        return ABSENT
    return _formatter(name, byte_unit)(value)


def figure_texts(name: str, values: Iterable[Any]) -> list[str]:
    """Return values of a figure that stand together, as texts: those of memory in one unit."""
    there = list(values)
    unit = figure_unit(name, there)
    return [format_figure(name, value, unit) for value in there]


def figure_unit(name: str, values: Iterable[Any]) -> ByteUnit | None:
    """Return the unit of memory that values of a figure are told in together; None of another figure."""
    if _unit(name) != "byte":
        return None
    return byte_unit(float(value) for value in values if value is not None and not pd.isna(value))


def _unit(name: str) -> str:
    figure = BY_NAME.get(name)
    return figure.unit if figure else "byte" if name.endswith("_bytes") else ""


def _formatter(name: str, byte_unit: ByteUnit | None) -> Callable[[Any], str]:
    unit = _unit(name)
    if unit == "byte":
        return lambda value: format_bytes(int(value), byte_unit)
    if unit == "s":
        return format_seconds
    if name in _THREE_DIGITS:
        return lambda value: f"{value:.3f}"
    if unit == "share":
        return lambda value: f"{value:.1%}"
    return lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def cells(table: pd.DataFrame, axes: Sequence[str]) -> Table:
    """Return one row per record; figures that no record has are left out."""
    figures = [name for name in FIGURE_WORDS if table[name].notna().any()]
    if table["padded_tokens_per_s"].equals(table["tokens_per_s"]):
        figures = [name for name in figures if name != "padded_tokens_per_s"]
    counted = [name for name in ("seed", "repeat") if table[name].nunique() > 1]
    names = [*axes, *counted, "status", *figures]
    units = {name: figure_unit(name, table[name]) for name in figures}
    rows = []
    for row in table.to_dict("records"):
        status = row["status"] + (" (!)" if row["warnings"] else "")
        given = [format_value(row[name]) for name in (*axes, *counted)]
        rows.append(
            (*given, status, *(format_figure(name, row[name], units[name]) for name in figures))
        )
    return Table(
        title="Cells",
        keys=tuple(tuple(map(_key, row)) for row in table[names].itertuples(index=False)),
        columns=tuple(FIGURE_WORDS.get(name) or axis_word(name) for name in names),
        rows=tuple(rows),
        numeric=tuple(name != "status" for name in names),
        optional=tuple(FIGURE_WORDS[name] for name in _OPTIONAL),
        leading=_leading(figures),
    )


def _leading(figures: Sequence[str]) -> tuple[str, ...]:
    """Return the heads of the columns that a run is judged by: its score, its time and its memory."""
    memory = next((name for name in _MEMORY if name in figures), "")
    names = (*(kind.column for kind in HEADLINES), "total_s", memory)
    return tuple(FIGURE_WORDS[name] for name in names if name in figures)


def _key(value: Any) -> float | str | None:
    """Return the sort key of a value: a number, or its text; None if it is absent."""
    if isinstance(value, str):
        return value
    return None if value is None or pd.isna(value) else float(value)


def along(series: AxisSeries) -> Table:
    """Return how each cost changes along an axis: its value, and its ratio to the one before.

    Values of an axis that are words stand in no order: without ratios.
    """
    fixed = ", ".join(
        f"{axis_word(name)} {format_value(value)}" for name, value in series.fixed.items()
    )
    figures = [name for name in series.ratios.columns if series.values[name].notna().any()]
    repeated = bool((series.values["runs"] > 1).any())
    scale = pd.api.types.is_numeric_dtype(series.values.index)  # words have no row before
    units = {name: figure_unit(name, series.values[name]) for name in figures}
    rows = []
    for value, figure, ratio in zip(
        series.values.index,
        series.values.to_dict("records"),
        series.ratios.to_dict("records"),
        strict=True,
    ):
        texts = [_with_spread(name, figure, units[name]) for name in figures]
        if scale:
            texts = [_with_ratio(t, ratio[n]) for t, n in zip(texts, figures, strict=True)]
        runs = [f"{figure['runs']:.0f}"] if repeated else []
        rows.append((format_value(value), *runs, *texts))
    heads = [axis_word(series.axis), *(["runs"] if repeated else [])]
    return Table(
        title=f"Along {axis_word(series.axis)}, at {fixed}",
        columns=(*heads, *(FIGURE_WORDS[name] for name in figures)),
        rows=tuple(rows),
        numeric=(scale, *(True,) * (len(heads) - 1 + len(figures))),
        folded=True,
        leading=(heads[0], *_leading(figures)),
    )


def _with_spread(name: str, figure: dict[Any, Any], unit: ByteUnit | None) -> str:
    """Return a figure as text, a score with its standard deviation over replicates."""
    text = format_figure(name, figure[name], unit)
    spread = figure["score_sd"]
    scored = name in _THREE_DIGITS and not pd.isna(spread)
    return f"{text} ± {spread:.3f}" if scored else text


def _with_ratio(text: str, ratio: float) -> str:
    return text if pd.isna(ratio) else f"{text} ({format_ratio(ratio)})"


def ledger(record: Record) -> Table:
    """Return the ledger of one record: one row per phase and one column per reading, the idle baseline first."""
    measured = record.measurement
    assert measured is not None
    untrusted = untrusted_figures(record)
    ledgers = [("idle", measured.idle)]
    ledgers += [(name.replace("_", " "), phase.memory) for name, phase in measured.phases.items()]
    ledgers += [("cell", measured.memory)]
    figures = [
        figure.name
        for figure in READINGS
        if any(memory.reading(figure.reading) is not None for _, memory in ledgers)
    ]
    units = {
        name: figure_unit(name, [memory.reading(name) for _, memory in ledgers]) for name in figures
    }
    rows = []
    for phase, memory in ledgers:
        texts = (
            "untrusted"
            if f"memory.{name}" in untrusted
            else format_figure(name, memory.reading(name), units[name])
            for name in figures
        )
        rows.append((phase, *texts))
    return Table(
        title="The ledger of the largest cell",
        columns=("phase", *(FIGURE_WORDS[name] for name in figures)),
        rows=tuple(rows),
        numeric=(False, *(True for _ in figures)),
        folded=True,
    )


def memory_word(table: pd.DataFrame) -> str:
    """Return the name of the memory figure that stands for a run."""
    return FIGURE_WORDS[headline_memory(table)]
