"""Summary: one row a record, with every published figure in a column of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftbench.plan.cell import Cell
from ftbench.plan.grid import axis_order
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.records.invariants import untrusted_figures
from ftbench.records.record import Measurement, Phase, Record

FIGURES = (
    "eval_accuracy",
    "eval_loss",
    "total_s",
    "train_s",
    "step_median_s",
    "samples_per_s",
    "tokens_per_s",
    "mfu",
    "peak_rss_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_process_bytes",
    "predicted_allocated_bytes",
    "predicted_reserved_bytes",
    "warnings",
)
MORE_FIGURES = (
    "replicate",
    "repeat",
    "attempt",
    "train_loss",
    "step_min_s",
    "step_q1_s",
    "step_q3_s",
    "step_low_s",
    "step_high_s",
    "step_warmup_steps",
    "data_wait_median_s",
    "padded_tokens_per_s",
    "flops_per_s",
    "peak_device_bytes",
    "context_bytes",
    "peak_pss_bytes",
    "peak_cpu_tensors_bytes",
    "energy_j",
    "load_s",
    "evaluation_s",
    "save_s",
    "wall_s",
    "outside_s",
    "others_cpu_share",
    "kernel_share",
    "page_faults_per_step",
    "environment_id",
    "failure",
    "untrusted",
)
# What a table says instead of `ok` of a record with a figure that breaks an invariant.
UNTRUSTED = "untrusted"
# The columns of figures that do not lie in a record's `memory` under their own name.
_COLUMN_OF = {
    "steps.min_s": ("step_min_s",),
    "steps.median_s": ("step_median_s", "step_q1_s", "step_q3_s", "step_low_s", "step_high_s"),
    "steps.real_tokens_per_s": ("tokens_per_s",),
    "steps.samples_per_s": (
        "samples_per_s",
        "tokens_per_s",
        "padded_tokens_per_s",
        "flops_per_s",
        "mfu",
    ),
}

# A setting that one cell names and another leaves to its default.
ABSENT_SETTING = "default"
# A setting of LoRA in a cell of another method, which does not use it.
UNUSED_SETTING = "not used"


def varying_axes(records: Sequence[Record]) -> list[str]:
    """Return the names that tables have a column for: the main axes, and whatever else tells cells apart.

    So runs of a profile with other settings, another model or other data can stand in one table,
    and never pass for replicates of each other. The seed is no axis: it only repeats a cell.
    """
    facets = [record.cell.facets for record in records]
    names = set().union(*facets) - {"seed"}
    varying = {name for name in names if len({repr(facet.get(name)) for facet in facets}) > 1}
    return axis_order(varying | set(REQUIRED_AXES))


def cells_table(records: Sequence[Record], axes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row a record, ordered by axes: `cell_id, status`, the axes, `seed`, the figures.

    The axes are those that vary, unless they are given.
    Memory in bytes, times in seconds, rates a second; a figure that is absent is missing (NaN in
    the table, empty in CSV). So is one that is untrusted: the record's status is then `untrusted`,
    and `untrusted` says why. `outside_s` is the cell's wall time less training, evaluating and
    saving: what the harness, the process and loading cost.
    """
    axes = varying_axes(records) if axes is None else axes
    rows = [_row(record, axes) for record in records]
    columns = ["cell_id", "status", *axes, "seed", *FIGURES, *MORE_FIGURES]
    table = pd.DataFrame(rows, columns=columns)
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
    """Return a cell's value on an axis as tables have it: a word where it has none."""
    value = cell.value(name)
    if value is not None:
        return value
    unused = name.startswith("lora.") and cell.method != "lora"
    return UNUSED_SETTING if unused else ABSENT_SETTING


def _withheld(record: Record) -> dict[str, Any]:
    """Return what takes the place of figures that are untrusted: nothing, and the reasons."""
    untrusted = untrusted_figures(record)
    if not untrusted:
        return {}
    row: dict[str, Any] = {}
    for path in untrusted:
        columns = _COLUMN_OF.get(path, (path.rpartition(".")[2],))
        row |= dict.fromkeys(columns)
    reasons = "; ".join(f"{path}: {reason}" for path, reason in untrusted.items())
    return row | {"status": UNTRUSTED, "untrusted": reasons}


def _figures(measured: Measurement, wall_s: float) -> dict[str, Any]:
    """Return the figures of a measurement by column."""
    phases = {name: phase.wall_s for name, phase in measured.phases.items()}
    inside = sum(seconds for name, seconds in phases.items() if name != "load")
    figures: dict[str, Any] = {
        "eval_accuracy": measured.eval_accuracy,
        "eval_loss": measured.eval_loss,
        "train_loss": measured.train_loss,
        "total_s": measured.total_s,
        "train_s": measured.train_s,
        "load_s": phases.get("load"),
        "evaluation_s": phases.get("evaluation"),
        "save_s": phases.get("save"),
        "outside_s": wall_s - inside,
        "others_cpu_share": measured.load.others_cpu_share,
        "energy_j": energy_j(measured),
        "warnings": "; ".join(run_warning.message for run_warning in measured.warnings),
        **measured.memory.model_dump(),
        **_kernel(measured.phases.get("train")),
    }
    if measured.steps is not None:
        steps = measured.steps
        figures |= {
            "step_median_s": steps.median_s,
            "step_min_s": steps.min_s,
            "step_q1_s": steps.q1_s,
            "step_q3_s": steps.q3_s,
            "step_low_s": steps.median_low_s,
            "step_high_s": steps.median_high_s,
            "step_warmup_steps": steps.warmup_steps,
            "data_wait_median_s": steps.data_wait_median_s,
            "samples_per_s": steps.samples_per_s,
            "tokens_per_s": steps.real_tokens_per_s,
            "padded_tokens_per_s": steps.padded_tokens_per_s,
            "flops_per_s": steps.flops_per_s,
            "mfu": steps.mfu,
        }
    return figures


def _kernel(training: Phase | None) -> dict[str, Any]:
    """Return what the kernel took of the processor time of training, and the page faults of a step."""
    if training is None or training.kernel_s is None or training.page_faults is None:
        return {}
    figures: dict[str, Any] = {}
    if training.cpu_s > 0:
        figures["kernel_share"] = training.kernel_s / training.cpu_s
    if training.steps:
        figures["page_faults_per_step"] = training.page_faults / training.steps
    return figures


def energy_j(measured: Measurement) -> float | None:
    """Return the joules that the card took over all phases; None where one of them was not counted."""
    joules = [phase.energy_j for phase in measured.phases.values()]
    known = [each for each in joules if each is not None]
    return sum(known) if known and len(known) == len(joules) else None


def headline_memory(table: pd.DataFrame) -> str:
    """Return the column of the memory figure that stands for a run: allocated on CUDA, else RSS."""
    return (
        "peak_allocated_bytes" if table["peak_allocated_bytes"].notna().any() else "peak_rss_bytes"
    )
