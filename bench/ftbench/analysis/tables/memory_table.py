"""The memory table: every reading of memory of every phase, one row each, with its baseline and its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ftbench.records.figures import READINGS
from ftbench.records.invariants import untrusted_figures
from ftbench.records.measurement import Measurement
from ftbench.records.readings import Memory
from ftbench.records.record import Record

COLUMNS = (
    "cell_id",
    "replicate",
    "repeat",
    "phase",
    "figure",
    "bytes",
    "idle_bytes",
    "unit",
    "source",
    "absent",
    "untrusted",
)
WHOLE_CELL = "cell"


def memory_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per record, phase and figure; `phase` is `cell` for the peaks over all phases.

    `bytes` is missing if the figure is absent (`absent` says why); a figure that is untrusted
    keeps its number here, beside the reason. `idle_bytes` is the same reading before the cell began.
    """
    rows = [row for record in records for row in _rows(record)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"bytes": "Int64", "idle_bytes": "Int64"})


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    measured = record.measurement
    if measured is None:
        return
    untrusted = untrusted_figures(record)
    ledgers: list[tuple[str, Memory]] = [(WHOLE_CELL, measured.memory)]
    ledgers += [(name, phase.memory) for name, phase in measured.phases.items()]
    for phase, memory in ledgers:
        for figure in (one.reading for one in READINGS):
            value = memory.reading(figure)
            yield {
                "cell_id": record.cell_id,
                "replicate": record.replicate,
                "repeat": record.repeat,
                "phase": phase,
                "figure": figure,
                "bytes": value,
                "idle_bytes": measured.idle.reading(figure),
                "unit": "byte",
                "source": measured.sources.get(figure, ""),
                "absent": _absent(measured, phase, figure) if value is None else "",
                "untrusted": untrusted.get(f"memory.{figure}", ""),
            }


def _absent(measured: Measurement, phase: str, figure: str) -> str:
    """Return why a figure is absent: in this phase, else in the whole cell."""
    own = measured.absent.get(f"phases.{phase}.memory.{figure}")
    return own or measured.absent.get(f"memory.{figure}", "")
