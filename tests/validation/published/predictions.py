"""Predictions: every row that can be traced, as one of its ranks, simulated on its card."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.simulate.simulation import Simulated, simulate_all
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.columns import Figures, columns
from tests.validation.jobs import with_predictions
from tests.validation.measured import printed
from tests.validation.published.litgpt import litgpt_loop
from tests.validation.published.rows import Run, card_of_row, reason_against, run_of, text_of
from tests.validation.published.titan import titan_loop

_STEPS = 2  # the second has all that later ones have


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own; runs that rows share are traced once."""
    records = [text_of(row) for row in rows.to_dict("records")]
    reasons = [reason_against(row) for row in records]
    runs = [None if reason else run_of(row) for row, reason in zip(records, reasons, strict=True)]
    return with_predictions(rows, runs, reasons, _predict)


def measured(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the rows say was measured, for `tests.validation.scores`; None without measured values."""
    if not {"peak_value", "peak_unit", "peak_definition"} <= set(rows):
        return None
    return pd.DataFrame([_measured(row) for row in rows.to_dict("records")], index=rows.index)


def trace_run(run: Run) -> Trace:
    """Return the memory events of a rank's first steps; rank 0 has the largest shards."""
    sizes = run.sizes._asdict()
    factory = (
        titan_loop(run.batch, run.length, run.checkpointing, **sizes)
        if run.program == "torchtitan"
        else litgpt_loop(run.batch, run.length, reshard=run.reshard, **sizes)
    )
    capability = card_of_row(run.card).compute_capability
    # Both programs saved the results of the flash and the memory-efficient kernel, not of cuDNN's.
    target = Target(compute_capability=capability, attention="flash", padding=False)
    return trace(factory, steps=_STEPS, target=target, ranks=Ranks(run.ranks))


def _predict(run: Run) -> Figures:
    """Return the predicted columns of a run, with the interval over both kinds of segments.

    The figure is of torch's default, segments from cudaMalloc. No row says whether expandable segments were
    switched on (torchtitan's script for one machine does it, its script for several does not).
    """
    warnings.filterwarnings("ignore")
    began = time.process_time()
    traced = trace_run(run)
    card = card_of(card_of_row(run.card), run.torch).with_communicators(traced.communicators)
    made, expandable = (
        simulate_all([traced], card.runtime, card.capacities, expandable_segments=kind)
        for kind in (False, True)
    )
    both = Simulated((*made.replays, *expandable.replays), made.out_of_memory)
    return columns(both) | {"seconds": round(time.process_time() - began, 3)}


def _measured(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's measured value; torchtitan's and torchao's `GB` are GiB of reserved memory."""
    unit = re.match(r"\w*", str(row["peak_unit"]))
    assert unit is not None
    binary = "GiB" in str(row["peak_unit"]) or "2^20" in str(row["peak_unit"])
    name = {"GB": "GiB", "MB": "MiB"}.get(unit[0], unit[0]) if binary else unit[0]
    return {
        "of": "reserved" if "reserved" in str(row["peak_definition"]) else "allocated",
        **printed(str(row["peak_value"]), name)._asdict(),
        "group": ", ".join(
            str(row[name] or f"{name} not stated") for name in ("method", "framework")
        ),
    }
