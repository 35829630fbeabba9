"""The frontier as a table: the largest batch of each length, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftbench.base.files import write_atomically
from ftbench.base.units import ByteUnit, byte_unit, format_bytes
from ftbench.execute.batch_search import ENFORCED, Row
from ftbench.plan.grid import axis_order
from ftbench.plan.settings import NOT_SEARCHED
from ftbench.records.batch_probe import BatchProbe
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word
from ftbench.report.render.csv_text import csv_text
from ftbench.report.render.markdown import render_table


def frontier_table(rows: Sequence[Row]) -> Table:
    """Return one row per length: the largest batch that fits, its peak, and the smallest that does not."""
    axes = _axes(rows)
    limits = {format_bytes(one.limit_bytes) for row in rows if (one := _any(row)) is not None}
    peaks = (one.peak_bytes for row in rows for one in (row.edge.fits, row.edge.fails) if one)
    unit = byte_unit(peak for peak in peaks if peak is not None)
    return Table(
        title=f"Largest batch under {', '.join(sorted(limits))}" if limits else "Largest batch",
        columns=(
            *map(axis_word, axes),
            "largest batch",
            "its peak",
            "does not fit",
            "the limit was",
        ),
        rows=tuple(_row(row, axes, unit) for row in rows),
        numeric=(*(True for _ in axes), True, True, False, False),
    )


def write_frontier(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `frontier.csv` and `frontier.md` into a folder and return their paths."""
    files = [folder / "frontier.csv", folder / "frontier.md"]
    axes = _axes(rows)
    table = pd.DataFrame([_figures(row, axes) for row in rows])
    write_atomically(files[0], csv_text(table))
    write_atomically(files[1], render_table(frontier_table(rows)))
    return files


def _axes(rows: Sequence[Row]) -> list[str]:
    """Return the settings that differ between rows, the length first."""
    facets = [row.cell.facets for row in rows]
    names = {name for facet in facets for name in facet} - NOT_SEARCHED
    varying = {name for name in names if len({repr(facet.get(name)) for facet in facets}) > 1}
    return [n for n in axis_order(varying | {"max_length"}) if n not in NOT_SEARCHED]


def _any(row: Row) -> BatchProbe | None:
    return row.edge.fits or row.edge.fails or row.edge.undecided


def _row(row: Row, axes: Sequence[str], unit: ByteUnit) -> tuple[str, ...]:
    fits, fails, undecided = row.edge.fits, row.edge.fails, row.edge.undecided
    largest = "none" if fits is None else str(fits.batch)
    if undecided is not None or fails is None:
        largest = f"at least {largest}" if fits else ABSENT
    peak = format_bytes(fits.peak_bytes, unit) if fits and fits.peak_bytes is not None else ABSENT
    beyond = f"{fails.batch} ({_why(fails, unit)})" if fails else ABSENT
    if undecided is not None:
        beyond = f"{undecided.batch}: {undecided.status}"
    known = _any(row)
    how = ABSENT if known is None else known.limit
    if how not in (ENFORCED, ABSENT):
        how = f"judged by the peak ({how})"
    return (*(str(row.cell.value(name)) for name in axes), largest, peak, beyond, how)


def _why(fails: BatchProbe, unit: ByteUnit) -> str:
    if fails.peak_bytes is not None:
        return format_bytes(fails.peak_bytes, unit)
    return "out of memory" if fails.status == "oom" else fails.status


def _figures(row: Row, axes: Sequence[str]) -> dict[str, Any]:
    fits, fails, undecided = row.edge.fits, row.edge.fails, row.edge.undecided
    known = _any(row)
    return {
        **{name: row.cell.value(name) for name in axes},
        "largest_batch": fits.batch if fits else (0 if fails else None),
        "peak_bytes": fits.peak_bytes if fits else None,
        "fails_at_batch": fails.batch if fails else None,
        "fails_with": fails.status if fails else None,
        "undecided_at_batch": undecided.batch if undecided else None,
        "limit_bytes": known.limit_bytes if known else None,
        "limit": known.limit if known else None,
    }
