"""Warnings: the untrusted figures, warnings and failures of single cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from ftbench.base.units import counted
from ftbench.plan.cell import Cell
from ftbench.plan.cell_names import naming_axes
from ftbench.records.invariants import untrusted_figures
from ftbench.records.measurement import REMARKS
from ftbench.records.record import Record
from ftbench.report.elements.table import Table
from ftbench.report.elements.words import axis_word

UNTRUSTED = "untrusted figure"


def warnings_section(records: Sequence[Record]) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables): the number of runs with warnings, and these warnings."""
    axes = list(dict.fromkeys(axis for record in records for axis in record.axes))
    named = naming_axes(list(dict.fromkeys(record.cell for record in records)), axes)
    rows = [row for record in records for row in _rows(record, named)]
    remarks = list(_remarks(records))
    if not rows:
        return (), _tables(remarks)
    counts = Counter(kind for _, kind, _ in rows)
    kinds = ", ".join(f"{kind} ({count})" for kind, count in counts.most_common())
    runs = sum(any(_rows(record, named)) for record in records)
    note = f"{runs} of {counted(len(records), 'run')}: {kinds}."
    if any(record.noisy or untrusted_figures(record) for record in records):
        note += " `ftbench run --rerun-noisy` runs the noisy ones again."
    order = {kind: place for place, kind in enumerate((UNTRUSTED, "crashed", "oom", "timeout"))}
    rows.sort(key=lambda row: (order.get(row[1], len(order)), row[1]))
    return (note,), _tables([*rows, *remarks])


def _tables(rows: Sequence[tuple[str, str, str]]) -> tuple[Table, ...]:
    columns = ("cell", "warning", "message")
    return (Table("Warnings", columns, tuple(rows), (False,) * 3),) if rows else ()


def _remarks(records: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """Yield (number of runs, kind, message) of each warning that follows from the profile, once."""
    found = Counter(
        (run_warning.name.replace("_", " "), run_warning.message)
        for record in records
        if record.measurement is not None
        for run_warning in record.measurement.warnings
        if run_warning.name in REMARKS
    )
    for (kind, message), count in found.items():
        yield counted(count, "run"), kind, message


def _rows(
    record: Record, named: Callable[[Cell], tuple[str, ...]]
) -> Iterator[tuple[str, str, str]]:
    """Yield (cell, kind, message) of one record."""
    axes = named(record.cell)
    cell = (
        ", ".join(f"{axis_word(axis)} {record.axis_value(axis)}" for axis in axes) or "the centre"
    )
    runs = (("replicate", record.replicate), ("repeat", record.repeat))
    cell += "".join(f", {word} {number}" for word, number in runs if number)
    for path, reason in untrusted_figures(record).items():
        yield cell, UNTRUSTED, f"{path}: {reason}"
    if record.measurement is not None:
        for run_warning in record.measurement.warnings:
            if run_warning.name in REMARKS:
                continue
            yield cell, run_warning.name.replace("_", " "), run_warning.message
    if record.failure is not None:
        at = f"at step {record.failure.step}: " if record.failure.step else ""
        yield cell, record.status, f"{at}{record.failure.message}"
