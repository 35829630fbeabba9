"""Predictions: every published run traced once, and simulated on its card."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
import transformers

from ftbench.base.errors import FtbenchError
from ftbench.plan.gpus import find_gpu
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.simulate.simulation import simulate_all
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.trace_trainer import Batches, trace_trainer
from ftbench.prediction.trace.tracer import Target
from tests.validation.columns import Figures, columns, unsplit_bytes
from tests.validation.fms.attention import attention_as_published
from tests.validation.fms.checkpointing import checkpointed_around_units
from tests.validation.fms.gptq import gptq_base
from tests.validation.fms.heads import Loss, head_as_published, prepared_by_trl, unprepared
from tests.validation.fms.optimizer import states_made_before
from tests.validation.fms.plugin import fast_kernels
from tests.validation.fms.replicas import adapters_on_every_card
from tests.validation.fms.rows import MODELS, Run, cell_of, reason_against, run_of
from tests.validation.jobs import with_predictions

MEASURED = ("peak_allocated_bytes", "outcome")
TORCH = (2, 4)  # of all rows
ALLOCATED = tuple(f"predicted_allocated_{end}bytes" for end in ("", "low_", "high_"))


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own; runs that rows share are traced once."""
    reasons = [reason_against(row) for row in rows.to_dict("records")]
    records = zip(rows.to_dict("records"), reasons, strict=True)
    jobs = [None if reason else (run_of(row), _gpu(row)) for row, reason in records]
    return with_predictions(rows, jobs, reasons, _predict)


def measured(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return what the rows say was measured, for `tests.validation.scores`; None without measured values."""
    if not set(MEASURED) <= set(rows):
        return None
    peak = pd.to_numeric(rows["peak_allocated_bytes"], errors="coerce")
    group = "causal-lm, " + rows["method"].astype(str) + ", " + rows["framework_config"].astype(str)
    return pd.DataFrame(
        {
            "of": "allocated",
            "low": peak,
            "high": peak,
            "failed": rows["outcome"] != "ok",
            "group": group,
        }
    )


def _gpu(row: Mapping[Any, Any]) -> str:
    return str(row["gpu"]).lower()


def _predict(job: tuple[Run, str]) -> Figures:
    """Return the predicted columns of a run on a card, or the reason why there are none."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    run, gpu_name = job
    began = time.process_time()
    try:
        gpu = find_gpu(gpu_name)
        trace, uncounted = trace_run(run, gpu.compute_capability)
    except FtbenchError as error:
        return {"not_predicted": " ".join(str(error).split())}
    card = card_of(gpu, TORCH).with_communicators(trace.communicators)
    simulated = simulate_all([trace], card.runtime, card.capacities)
    figures = as_measured(columns(simulated, unsplit_bytes(trace)), uncounted)
    return figures | {"seconds": round(time.process_time() - began, 3)}


def as_measured(figures: Figures, uncounted: int) -> Figures:
    """Return the figures with allocated memory as it was measured: without these bytes."""
    return figures | {name: int(str(figures[name])) - uncounted for name in ALLOCATED}


def _states_are_made_before(run: Run) -> bool:
    """Return whether one step is traced; else two, of which the first makes the optimizer's state."""
    return run.method == "lora" and run.optimizer == "adamw_torch"


def trace_run(run: Run, capability: tuple[int, int]) -> tuple[Trace, int]:
    """Return the memory events of a published run's first steps, and the bytes that its measurement left out."""
    config = json.loads((MODELS / f"{run.model}.json").read_text())
    model_type = config["model_type"]
    loss: Loss = "liger" if run.liger else "fast" if run.fused else "torch"
    uncounted: list[int] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(head_as_published(model_type, run.transformers, loss))
        stack.enter_context(attention_as_published(model_type, run.transformers))
        stack.enter_context(unprepared() if run.plugin else prepared_by_trl())
        if run.cards > 1:
            stack.enter_context(checkpointed_around_units())
        if run.cards > 1 and run.fused and (run.quantized or run.group):
            uncounted = stack.enter_context(adapters_on_every_card())
        if run.group:
            sharded = getattr(torch, run.dtype) if run.cards > 1 else None
            stack.enter_context(gptq_base(model_type, run.group, config["vocab_size"], sharded))
        if run.fused:
            stack.enter_context(fast_kernels(model_type, quantized=run.quantized or run.group != 0))
        if _states_are_made_before(run):
            stack.enter_context(states_made_before())
        trace = trace_trainer(
            cell_of(run),
            Target(compute_capability=capability, padding=False),
            batches=Batches((run.length,)),
            steps=1 if _states_are_made_before(run) else 2,
            evaluation=False,
            ranks=Ranks(run.cards) if run.cards > 1 else None,
        )
    return trace, sum(uncounted)
