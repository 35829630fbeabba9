"""Runs: the table that fits of cost are made from, with all that a cost depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.summary import cells_table
from bench.record import Measurement, Record

_COUNTS = (
    "documents_a_step",
    "epochs",
    "optimizer_steps",
    "eval_documents",
    "eval_size",
    "saves",
    "predicted_tensors_bytes",
)


def scaling_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row a run that is ok and whose figures are all trusted: what costs depend on, and costs.

    Beside the columns of `cells_table`: `documents_a_step`; `epochs` (missing where `max_steps` decides);
    `optimizer_steps`; `eval_documents`, those of all evaluations, and `eval_size`, those of one;
    `saves`, how often saving was begun; `predicted_tensors_bytes`. Bytes and seconds.
    """
    records = list(records)
    table = cells_table(records).drop(columns="warnings")
    trusted = table[table["status"] == "ok"].copy()
    rows = {r.cell_id: _counts(r, r.measurement) for r in records if r.measurement}
    counts = pd.DataFrame(list(rows.values()), columns=["cell_id", *_COUNTS])
    new = [name for name in counts if name == "cell_id" or name not in trusted]  # else an axis
    joined = trusted.merge(counts[new], on="cell_id", validate="many_to_one")
    costs = [name for name in joined if str(name).endswith(("_s", "_bytes", "_j", "_accuracy"))]
    return joined.astype(dict.fromkeys([*costs, *new[1:]], float))


def _counts(record: Record, measured: Measurement) -> dict[str, Any]:
    """Return what `cells_table` does not say of a run; it is the same in all runs of a cell."""
    cell, phases = record.cell, measured.phases
    settings = cell.settings
    steps = sum(phases[n].steps or 0 for n in ("first_steps", "train") if n in phases)
    evaluation, save = phases.get("evaluation"), phases.get("save")
    limited = int(settings.get("max_steps", -1)) > 0
    epochs = None if limited else float(settings["num_train_epochs"])
    an_epoch = np.ceil(cell.train_size / cell.documents_a_step)
    evaluated = evaluation and (evaluation.samples or cell.data.eval_size * evaluation.entries)
    return {
        "cell_id": record.cell_id,
        "documents_a_step": cell.documents_a_step,
        "epochs": epochs,
        "optimizer_steps": steps or (None if epochs is None else np.ceil(epochs * an_epoch)),
        "eval_documents": evaluated,
        "eval_size": cell.data.eval_size,
        "saves": save and save.entries,
        "predicted_tensors_bytes": record.predicted and record.predicted.tensors_bytes,
    }
