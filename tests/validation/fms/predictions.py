"""Predictions: every published run traced once, and simulated on its card."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pandas as pd
import transformers

from ftbench.base.errors import FtbenchError
from ftbench.plan.gpus import find_gpu
from ftbench.predict.simulate.cards import card_of
from ftbench.predict.simulate.simulation import Simulated, simulate_all
from ftbench.predict.trace.events import Trace
from ftbench.predict.trace.trace_trainer import Batches, trace_trainer
from ftbench.predict.trace.tracer import Target
from tests.validation.fms.heads import head_as_published, unprepared
from tests.validation.fms.rows import MODELS, Run, cell_of, reason_against, run_of

FIGURES = ("allocated", "reserved")
COLUMNS = (
    *(f"predicted_{name}_{end}bytes" for name in FIGURES for end in ("", "low_", "high_")),
    "predicted_oom",
    "seconds",
    "not_predicted",
)
WORKERS = 2
TORCH = (2, 4)  # of all rows
# Adam's state is made in the first step; the second has all that later ones have.
_STEPS = 2
# c10/cuda/CUDACachingAllocator.cpp, `should_split`: a block of the large pool (requests above 1 MiB) is handed out
# whole if at most 1 MiB (kSmallSize) would be left of it.
_KEPT_WHOLE = 2**20

Figures = dict[str, object]


def predict_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the predicted columns after their own; runs that rows share are traced once."""
    reasons = [reason_against(row) for row in rows.to_dict("records")]
    records = zip(rows.to_dict("records"), reasons, strict=True)
    jobs = [None if reason else (run_of(row), _gpu(row)) for row, reason in records]
    distinct = list(dict.fromkeys(job for job in jobs if job is not None))
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        found: dict[tuple[Run, str], Figures] = {}
        for job, figures in zip(distinct, pool.map(_predict, distinct), strict=True):
            found[job] = figures
            print(f"{len(found)}/{len(distinct)} {job[0].model}, {job[0].batch}", file=sys.stderr)
    predicted: list[Figures] = [
        {"not_predicted": reason} if job is None else found[job]
        for job, reason in zip(jobs, reasons, strict=True)
    ]
    added = pd.DataFrame(predicted, index=rows.index, columns=list(COLUMNS), dtype=object)
    return pd.concat([rows, added], axis=1)


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
        trace = trace_run(run, gpu.compute_capability)
    except FtbenchError as error:
        return {"not_predicted": " ".join(str(error).split())}
    card = card_of(gpu, TORCH)
    simulated = simulate_all([trace], card.runtime, card.capacities)
    return columns(simulated, unsplit_bytes(trace)) | {
        "seconds": round(time.process_time() - began, 3)
    }


def trace_run(run: Run, capability: tuple[int, int]) -> Trace:
    """Return the memory events of a published run's first steps."""
    model_type = json.loads((MODELS / f"{run.model}.json").read_text())["model_type"]
    with head_as_published(model_type, run.transformers), unprepared():
        return trace_trainer(
            cell_of(run),
            Target(compute_capability=capability, padding=False),
            batches=Batches((run.length,)),
            steps=_STEPS,
            evaluation=False,
        )


def unsplit_bytes(trace: Trace) -> int:
    """Return the most that blocks of weights can have beyond their request, in bytes.

    The weights of a published run came from a checkpoint. The trace does not have its loading, which decides how
    large the free blocks were that the weights were put in: each can be up to 1 MiB larger.
    """
    weights = {block for block, role in trace.roles().items() if role == "parameters"}
    sizes = zip(trace.block.tolist(), trace.nbytes.tolist(), strict=True)
    return _KEPT_WHOLE * len({block for block, size in sizes if block in weights and size > 2**20})


def columns(simulated: Simulated, unsplit: int) -> Figures:
    """Return a simulation's figures by column; the upper ends are `unsplit` bytes above the simulated ones."""
    figures: Figures = {"predicted_oom": int(simulated.first.out_of_memory)}
    for name in FIGURES:
        low, high = simulated.interval(f"peak_{name}_bytes")
        figures[f"predicted_{name}_bytes"] = getattr(simulated.first, f"peak_{name}_bytes")
        figures[f"predicted_{name}_low_bytes"] = low
        figures[f"predicted_{name}_high_bytes"] = high + unsplit
    return figures
