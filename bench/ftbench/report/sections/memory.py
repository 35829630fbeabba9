"""Memory: which figure is the headline and why, and the ledger of the cell that needed most."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ftbench.analysis.tables.cells_table import headline_memory
from ftbench.base.units import counted, format_seconds
from ftbench.records.measurement import Measurement
from ftbench.records.record import Record
from ftbench.report.elements.table import Table
from ftbench.report.elements.tables import ledger
from ftbench.report.elements.words import FIGURE_WORDS

ON_CARD = (
    "Peak allocated is the headline: the most that tensors held at once, which hardly moves from run to run."
    " nvidia-smi shows more, since it counts what torch's allocator keeps for later (reserved), the CUDA context"
    " and its libraries (process), and every other process on the card (device)."
)
ON_HOST = (
    "Peak RSS is the headline: the most that the worker's process had in memory at once, Python and libraries"
    " included. nvidia-smi shows nothing of it, since the cells ran on the CPU; what tensors alone took is under"
    " CPU tensors."
)


def memory_section(
    table: pd.DataFrame, records: Sequence[Record]
) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    """Return (paragraphs, tables) on memory; both empty if no record has the headline figure."""
    name = headline_memory(table)
    found = [
        (value, number, record.measurement)
        for number, record in enumerate(records)
        if record.measurement and (value := getattr(record.measurement.memory, name)) is not None
    ]
    if not found:
        return (), ()
    _, number, measured = max(found, key=lambda one: one[:2])
    note = ON_CARD if name == "peak_allocated_bytes" else ON_HOST
    return (note, _sources(measured)), (ledger(records[number]),)


def _sources(measured: Measurement) -> str:
    read = "; ".join(
        f"{FIGURE_WORDS[figure]}: {source}" for figure, source in measured.sources.items()
    )
    sampling = measured.sampling
    sampled = (
        f" Sampled figures were read {counted(sampling.samples, 'time')}, every"
        f" {format_seconds(sampling.period_s)} (median), by a process that took {sampling.cpu_share:.2%} of one"
        " processor."
        if sampling
        else ""
    )
    return f"Sources: {read}.{sampled} The ledger of every cell is in ledger.csv."
