"""The scaling table: the runs that fits of cost are made from, with all that a cost depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.tables.cells_table import cells_table
from ftbench.plan.schedule import schedule_of
from ftbench.plan.scores import SCORES
from ftbench.records.measurement import Measurement
from ftbench.records.record import Record

_COUNTS = (
    "examples_per_step",
    "examples_per_epoch",
    "epochs",
    "optimizer_steps",
    "eval_documents",
    "eval_size",
    "checkpoints",
    "predicted_tensors_bytes",
)


def scaling_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per run that is ok and whose figures are all trusted: what costs depend on, and costs.

    Beside the columns of `cells_table`: `examples_per_step`; `examples_per_epoch`, those that an epoch trains
    on; `epochs` (missing if `max_steps` decides); `optimizer_steps`; `eval_documents`, those of all
    evaluations, and `eval_size`, those of one; `checkpoints`, those that training saved;
    `predicted_tensors_bytes`. Bytes and seconds.
    """
    records = list(records)
    table = cells_table(records).drop(columns="warnings")
    trusted = table[table["status"] == "ok"].copy()
    rows = {r.cell_id: _counts(r, r.measurement) for r in records if r.measurement}
    counts = pd.DataFrame(list(rows.values()), columns=["cell_id", *_COUNTS])
    new = [name for name in counts if name == "cell_id" or name not in trusted]  # else an axis
    joined = trusted.merge(counts[new], on="cell_id", validate="many_to_one")
    scores = [kind.column for kind in SCORES]
    costs = [
        name for name in joined if str(name).endswith(("_s", "_bytes", "_j")) or name in scores
    ]
    return joined.astype(dict.fromkeys([*costs, *new[1:]], float))


def _counts(record: Record, measured: Measurement) -> dict[str, Any]:
    """Return the columns that `cells_table` lacks; they are the same in all runs of a cell."""
    cell, phases = record.cell, measured.phases
    settings = cell.settings
    steps = sum(phases[n].steps or 0 for n in ("first_steps", "train") if n in phases)
    evaluation, job = phases.get("evaluation"), schedule_of(cell)
    limited = int(settings.get("max_steps", -1)) > 0
    evaluated = evaluation and (evaluation.samples or cell.data.eval_size * evaluation.entries)
    return {
        "cell_id": record.cell_id,
        "examples_per_step": cell.examples_per_step,
        "examples_per_epoch": job.examples_per_epoch,
        "epochs": None if limited else float(settings["num_train_epochs"]),
        "optimizer_steps": steps or job.steps,
        "eval_documents": evaluated,
        "eval_size": cell.data.eval_size,
        "checkpoints": job.checkpoints,
        "predicted_tensors_bytes": record.predicted and record.predicted.tensors_bytes,
    }
