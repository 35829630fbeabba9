"""The cells table: one row per record, with every published figure in a column of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftbench.plan.cell import Cell
from ftbench.plan.grid import axis_order
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.scores import ACCURACY, HEADLINES, ScoreKind
from ftbench.records.figures import FIGURES, FIRST, value_of, withheld_with
from ftbench.records.invariants import UNTRUSTED, untrusted_figures
from ftbench.records.measurement import REMARKS, Measurement
from ftbench.records.record import Record

# Beside the figures of a measurement: what was predicted, and what a record says of itself.
PREDICTED = ("predicted_allocated_bytes", "predicted_reserved_bytes")
OF_RECORD = (
    "replicate",
    "repeat",
    "attempt",
    "wall_s",
    "outside_s",
    "environment_id",
    "failure",
    "untrusted",
)
# The column of the standard error of a run's headline score.
SCORE_ERROR = "score_se"

# A setting that one cell names and another leaves to its default.
ABSENT_SETTING = "default"
# A setting of LoRA in a cell of another method, which does not use it.
UNUSED_SETTING = "not used"


def varying_axes(records: Sequence[Record]) -> list[str]:
    """Return the names that tables have a column for: the main axes, and all else that tells cells apart.

    So runs of a profile with other settings, another model or other data can stand in one table,
    and never pass for replicates of each other. The seed is no axis: it only repeats a cell.
    """
    facets = [record.cell.facets for record in records]
    names = set().union(*facets) - {"seed"}
    varying = {name for name in names if len({repr(facet.get(name)) for facet in facets}) > 1}
    return axis_order(varying | set(REQUIRED_AXES))


def cells_table(records: Sequence[Record], axes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per record, ordered by axes: `cell_id, status`, the axes, `seed`, the figures.

    The axes are those that vary, unless they are given.
    Memory in bytes, times in seconds, rates per second; a figure that is absent is missing (NaN in
    the table, empty in CSV). So is one that is untrusted: the record's status is then `untrusted`,
    and `untrusted` says why. `outside_s` is the cell's wall time less training, evaluating and
    saving: what the harness, the process and loading cost.
    """
    axes = varying_axes(records) if axes is None else axes
    rows = [_row(record, axes) for record in records]
    first = [*(figure.name for figure in FIRST), *PREDICTED, "warnings"]
    rest = [*(figure.name for figure in FIGURES), *OF_RECORD]
    columns = dict.fromkeys(["cell_id", "status", *axes, "seed", *first, *rest])
    table = pd.DataFrame(rows, columns=list(columns))
    mixed = [name for name in axes if table[name].isin([ABSENT_SETTING, UNUSED_SETTING]).any()]
    return table.astype(dict.fromkeys(mixed, str)).sort_values(
        [*axes, "seed"], kind="stable", ignore_index=True
    )


def _row(record: Record, axes: Sequence[str]) -> dict[str, Any]:
    """Return one record as a row."""
    row: dict[str, Any] = {
        "cell_id": record.cell_id,
        "status": record.status,
        "replicate": record.replicate,
        "repeat": record.repeat,
        "attempt": record.attempt,
        "seed": record.seed,
        "wall_s": record.wall_s,
        "environment_id": record.environment_id,
        "warnings": "",
    }
    row |= {name: shown_value(record.cell, name) for name in axes}
    if record.measurement is not None:
        row |= _figures(record.measurement, record.wall_s)
    if record.predicted is not None:
        row["predicted_allocated_bytes"] = record.predicted.allocated_bytes
        row["predicted_reserved_bytes"] = record.predicted.reserved_bytes
    if record.failure is not None:
        row["failure"] = record.failure.message
    return row | _withheld(record)


def shown_value(cell: Cell, name: str) -> Any:
    """Return a cell's value on an axis as tables have it: a word if it has none."""
    value = cell.value(name)
    if value is not None:
        return value
    unused = name.startswith("lora.") and cell.method != "lora"
    return UNUSED_SETTING if unused else ABSENT_SETTING


def _withheld(record: Record) -> dict[str, Any]:
    """Return the columns that replace figures that are untrusted: None for each, and the reasons."""
    untrusted = untrusted_figures(record)
    if not untrusted:
        return {}
    row: dict[str, Any] = {}
    for path in untrusted:
        row |= dict.fromkeys(withheld_with(path))
    reasons = "; ".join(f"{path}: {reason}" for path, reason in untrusted.items())
    return row | {"status": UNTRUSTED, "untrusted": reasons}


def _figures(measured: Measurement, wall_s: float) -> dict[str, Any]:
    """Return the figures of a measurement by column."""
    inside = sum(phase.wall_s for name, phase in measured.phases.items() if name != "load")
    return {
        **{figure.name: value_of(figure, measured) for figure in FIGURES},
        "outside_s": wall_s - inside,
        "warnings": "; ".join(w.message for w in measured.warnings if w.name not in REMARKS),
    }


def headline_score(table: pd.DataFrame) -> ScoreKind:
    """Return the score that stands for the runs of a table; accuracy if none has a score."""
    there = (k for k in HEADLINES if k.column in table and table[k.column].notna().any())
    return next(there, ACCURACY)


def headline_memory(table: pd.DataFrame) -> str:
    """Return the column of the memory figure that stands for a run: allocated on CUDA, else RSS."""
    return (
        "peak_allocated_bytes" if table["peak_allocated_bytes"].notna().any() else "peak_rss_bytes"
    )
