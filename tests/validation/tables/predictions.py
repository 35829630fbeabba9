"""Predictions: every row of a published table traced once, and simulated on its card."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import transformers

from ftbench.base.errors import FtbenchError
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.simulate.simulation import simulate_all
from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.columns import Figures, columns, unsplit_bytes
from tests.validation.jobs import with_predictions
from tests.validation.measured import Printed, printed
from tests.validation.tables.loops import loop
from tests.validation.tables.rows import COURSE, Run, card_of_row, reason_against, run_of

_STEPS = 2  # the second has all that later ones have
# torch 2.2 took flash-attention 2, whose result has the layout of the queries; the kernels before gave that of the
# memory-efficient one.
_FLASH_2 = (2, 2)


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own; runs that rows share are traced once."""
    records = rows.to_dict("records")
    reasons = [reason_against(row) for row in records]
    runs = [None if reason else run_of(row) for row, reason in zip(records, reasons, strict=True)]
    return with_predictions(rows, runs, reasons, _predict)


def measured(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the rows say was measured, for `tests.validation.scores`; None without measured values."""
    if not {"figure", "unit", "definition"} <= set(rows):
        return None
    return pd.DataFrame([_measured(row) for row in rows.to_dict("records")], index=rows.index)


def _measured(row: Mapping[Any, Any]) -> dict[str, Any]:
    reserved = "reserved" in str(row["definition"])
    value: Printed = printed(str(row["figure"]), str(row["unit"]))
    group = f"{str(row['model']).split(' (')[0]}, {row['task']}, {row['attention']}, {row['dtype']}"
    return {
        "of": "reserved" if reserved else "allocated",
        **value._asdict(),
        "group": group,
    }


def _predict(run: Run) -> Figures:
    """Return the predicted columns of a run, or the reason why there are none."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    began = time.process_time()
    gpu = card_of_row(run.card)
    target = Target(
        compute_capability=gpu.compute_capability,
        attention="efficient" if run.torch < _FLASH_2 and run.attention != "eager" else None,
        padding=False,
    )
    try:
        traced = trace(loop(run), steps=_STEPS, target=target)
    except FtbenchError as error:
        return {"not_predicted": " ".join(str(error).split())}
    card = card_of(gpu, run.torch)
    simulated = simulate_all([traced], card.runtime, card.capacities)
    loaded = 0 if run.model == COURSE else unsplit_bytes(traced)
    return columns(simulated, loaded) | {"seconds": round(time.process_time() - began, 3)}
