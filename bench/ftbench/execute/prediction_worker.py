"""Predictions made in a worker process, since tracing needs torch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from ftbench.base.errors import PredictionError, ProfileError
from ftbench.base.units import format_bytes
from ftbench.execute.engines.base import Engine
from ftbench.execute.kept.kept_answer import KeptAnswer
from ftbench.execute.outcome import require_answer
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu, find_gpu
from ftbench.records.environment import Device, Environment
from ftbench.records.fit_search import FitAnswer, FitRequest
from ftbench.records.messages import Progress
from ftbench.records.predicted_peaks import PredictedPeaks
from ftbench.records.prediction import CellPrediction, Predictions, PredictRequest, ProgramRequest
from ftbench.records.recorded import RecordedPredictions, RecordedRequest

PREDICT = "ftbench.prediction.main"
RECORDED = "ftbench.prediction.recorded"
PREDICT_PROGRAM = "ftbench.prediction.programs"
SEARCH = "ftbench.prediction.fit_search"
TIMEOUT_S = 3600.0
MOST_PROCESSES = 4


def processes() -> int:
    """Return the number of processes that trace and simulate: one per core, at most four."""
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def forecast(
    request: PredictRequest | ProgramRequest,
    engine: Engine,
    *,
    kept: KeptAnswer | None = None,
    log_file: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Predictions:
    """Return a worker's predictions; raises the worker's own error, and WorkerError if it has no answer.

    With `kept`, the predictions are kept there. It is not looked into: who does that need not import this module.
    """
    module = PREDICT_PROGRAM if isinstance(request, ProgramRequest) else PREDICT
    asked: BaseModel = request
    if kept is not None:
        question = request.model_dump(mode="json")
        module, asked = RECORDED, RecordedRequest(module=module, request=question)
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        outcome = engine.run(
            module,
            asked.model_dump_json(),
            log_file=log_file or Path(scratch) / "predict.log",
            timeout_s=TIMEOUT_S,
            on_progress=on_progress,
        )
        if kept is None:
            return require_answer(outcome, "prediction", Predictions, log_file)
        recorded = require_answer(outcome, "prediction", RecordedPredictions, log_file)
    kept.keep(recorded.answer, recorded.read)
    return recorded.answer


def searched(
    request: FitRequest, engine: Engine, *, on_progress: Callable[[Progress], None]
) -> FitAnswer:
    """Return a worker's answer to a search; raises the worker's own error, and WorkerError if it has no answer."""
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        outcome = engine.run(
            SEARCH,
            request.model_dump_json(),
            log_file=Path(scratch) / "search.log",
            timeout_s=TIMEOUT_S,
            on_progress=on_progress,
        )
        return require_answer(outcome, "search", FitAnswer, None)


def gpu_of(device: Device) -> Gpu:
    """Return the catalogue's entry for the card of this machine, with the memory that the card reports.

    Raises PredictionError if the card is not in the catalogue.
    """
    assert device.total_memory_bytes is not None
    total = device.total_memory_bytes
    try:
        gpu = find_gpu(device.name)
    except ProfileError as error:  # the card's kernels and workspaces are not known
        raise PredictionError(
            "this machine's card is not in the catalogue, so memory on it cannot be predicted",
            where="--skip-unfit",
            got=device.name,
        ) from error
    return gpu.model_copy(update={"memory_low_bytes": total, "memory_bytes": total})


def does_not_fit(
    prediction: CellPrediction, environment: Environment, processes: int = 1
) -> str | None:
    """Return the reason that a cell cannot fit on a machine's device; None if it may fit.

    On the CPU, all processes of the cell share the machine's memory; otherwise each has a card.
    """
    if environment.device.kind == "cpu":
        most, room = prediction.tensors.low_bytes, environment.memory_bytes
        least = prediction.smallest_rank_bytes
        need = most + (processes - 1) * (most if least is None else min(most, least))
        if need <= room:
            return None
        of = f" in {processes} processes" if processes > 1 else ""
        return f"predicted not to fit: its tensors{of} need {format_bytes(need)} of {format_bytes(room)}"
    for card in prediction.cards:
        if card.verdict == "does not fit":
            room = card.capacity_high_bytes
            return f"predicted not to fit: it runs out of the {format_bytes(room)} of the card"
    return None


def predicted_peaks(prediction: CellPrediction, cell: Cell) -> PredictedPeaks:
    """Return the middle values of a prediction, for comparison with the measured ones."""
    card = prediction.cards[0] if prediction.cards else None
    fits = card is not None and card.verdict == "fits"  # else the figures end at a failure
    return PredictedPeaks(
        tensors_bytes=prediction.tensors.value_bytes,
        rank_tensors_bytes=_of_ranks(prediction, cell),
        allocated_bytes=card.allocated.value_bytes if card and fits else None,
        reserved_bytes=card.reserved.value_bytes if card and fits else None,
    )


def _of_ranks(prediction: CellPrediction, cell: Cell) -> tuple[int, ...]:
    """Return the peak of each rank, if all are known: predicted are the first and the last, most and least."""
    most, least = prediction.tensors.value_bytes, prediction.smallest_rank_bytes
    if cell.num_processes > 1 and cell.strategy == "ddp":  # all need the same
        return (most,) * cell.num_processes
    return (most, least) if cell.num_processes == 2 and least is not None else ()
