"""Warnings: the untrusted figures, warnings and failures of single cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ftbench.records.invariants import untrusted_figures
from ftbench.records.record import Record
from ftbench.report.elements.tables import Table, axis_word

UNTRUSTED = "untrusted figure"


def warnings_section(records: Sequence[Record]) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables): the number of runs with warnings, and these warnings."""
    rows = [row for record in records for row in _rows(record)]
    if not rows:
        return (), ()
    counts = Counter(kind for _, kind, _ in rows)
    named = ", ".join(f"{kind} ({count})" for kind, count in counts.most_common())
    runs = sum(any(_rows(record)) for record in records)
    note = f"{runs} of {len(records)} runs: {named}."
    if any(record.noisy or untrusted_figures(record) for record in records):
        note += " `ftbench run --rerun-noisy` runs the noisy ones again."
    order = {kind: place for place, kind in enumerate((UNTRUSTED, "crashed", "oom", "timeout"))}
    rows.sort(key=lambda row: (order.get(row[1], len(order)), row[1]))
    return (note,), (Table("Warnings", ("cell", "warning", "message"), tuple(rows), (False,) * 3),)


def _rows(record: Record) -> Iterator[tuple[str, str, str]]:
    """Yield (cell, kind, message) of one record."""
    cell = ", ".join(f"{axis_word(axis)} {record.axis_value(axis)}" for axis in record.axes)
    runs = (("replicate", record.replicate), ("repeat", record.repeat))
    cell += "".join(f", {word} {number}" for word, number in runs if number)
    for path, reason in untrusted_figures(record).items():
        yield cell, UNTRUSTED, f"{path}: {reason}"
    if record.measurement is not None:
        for run_warning in record.measurement.warnings:
            yield cell, run_warning.name.replace("_", " "), run_warning.message
    if record.failure is not None:
        at = f"at step {record.failure.step}: " if record.failure.step else ""
        yield cell, record.status, f"{at}{record.failure.message}"
