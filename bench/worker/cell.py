"""Cell: one replicate of one cell, from request to measurement."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc
import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bench.grid import Cell
from bench.messages import CellRequest, Progress, tokenised_key
from bench.record import (
    FIRST_STEPS,
    Epoch,
    Failure,
    Measurement,
    Phase,
    PhaseName,
    Status,
)
from bench.worker.data import read_tokenised
from bench.worker.device import compute_dtype, describe, synchronizer, torch_device
from bench.worker.finetune import Result, finetune
from bench.worker.meters import MemoryMeter
from bench.worker.meters.host import HostMemory
from bench.worker.meters.machine import MachineLoad, load_warnings
from bench.worker.meters.nvml import NvmlMemory
from bench.worker.meters.torch_cuda import NoCuda, TorchCudaMemory
from bench.worker.phases import PhaseBook
from bench.worker.steps import spread_warning, summarise, write_steps

PROGRESS_INTERVAL_S = 0.5
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Run the `CellRequest` and return its status with a `Measurement` or a `Failure`, as JSON data."""
    began = time.perf_counter()
    request = CellRequest.model_validate(body)
    reporter = _Reporter(emit)
    device = torch_device(request.device)
    phases = PhaseBook(
        _memory_meters(device),
        synchronize=synchronizer(device),
        on_enter=reporter.enter,
    )
    try:
        measurement = _measure(request, device, phases, reporter, began)
    except (Exception, MemoryError) as error:
        traceback.print_exc()
        failure = Failure(
            message=f"{type(error).__name__}: {error}", phase=phases.running, step=reporter.step
        )
        return {"status": _status(error), "failure": failure.model_dump(mode="json")}
    return {"status": "ok", "measurement": measurement.model_dump(mode="json")}


def _measure(
    request: CellRequest,
    device: torch.device,
    phases: PhaseBook,
    reporter: _Reporter,
    began: float,
) -> Measurement:
    """Fine-tune, and gather what the meters read."""
    cell, preparation = request.cell, request.preparation
    machine = MachineLoad()
    phases.enter("load")
    transformers.utils.logging.disable_progress_bar()
    files = preparation.tokenised[tokenised_key(cell)]
    pools = (
        read_tokenised(files.train, cell.train_size),
        read_tokenised(files.evaluation, cell.data.eval_size),
    )
    result = finetune(
        cell,
        preparation.labels,
        pools,
        seed=request.seed,
        output=request.output,
        use_cpu=device.type == "cpu",
        phases=phases,
        callbacks=[reporter],
    )
    phases.enter(None)
    table = result.trainer.steps.table(preparation.flops)
    write_steps(table, request.steps_file)
    peak = preparation.peak_matmul_flops.get(compute_dtype(cell.settings))
    steps = summarise(table, peak)
    booked = _with_counts(phases.phases(), table, pools[1], cell)
    load = machine.read()
    random = cell.model.weights == "random"
    absent = phases.absent()
    if random:
        absent["eval_accuracy"] = "the weights are random: only the cost means anything"
    if preparation.flops_absent:
        absent["steps.flops_per_s"] = absent["steps.mfu"] = preparation.flops_absent
    if steps is None:
        absent["steps"] = f"no step after the first {FIRST_STEPS}"
    spread = spread_warning(steps)
    warnings = [*load_warnings(load), *([spread] if spread else [])]
    return Measurement(
        device=describe(device),
        phases=booked,
        epochs=_epochs(result, random=random),
        steps=steps,
        memory=phases.peaks(),
        worker_s=time.perf_counter() - began,
        total_s=sum(phase.wall_s for phase in booked.values()),
        train_s=sum(booked[name].wall_s for name in ("first_steps", "train") if name in booked),
        train_loss=result.train_loss,
        eval_loss=result.evaluation.get("eval_loss"),
        eval_accuracy=None if random else result.evaluation.get("eval_accuracy"),
        load=load,
        peak_matmul_flops=peak,
        absent=absent,
        warnings=tuple(warnings),
    )


def _memory_meters(device: torch.device) -> list[MemoryMeter]:
    """Return the meters of a device; the host's memory is read on every machine."""
    if device.type == "cpu":
        return [HostMemory(), NoCuda()]
    uuid = describe(device).uuid
    assert uuid is not None
    return [HostMemory(), TorchCudaMemory(torch.cuda), NvmlMemory(uuid)]


def _status(error: BaseException) -> Status:
    """Return `oom` for the ways in which memory runs out, `crashed` for anything else."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "oom"
    said = str(error).lower()
    return (
        "oom"
        if isinstance(error, RuntimeError) and any(s in said for s in _OUT_OF_MEMORY)
        else "crashed"
    )


def _epochs(result: Result, *, random: bool) -> tuple[Epoch, ...]:
    """Return losses and accuracy after each epoch; the last evaluation in it counts."""
    steps = result.trainer.steps
    # The recipe's closing `evaluate()` is reported apart: it is of the best model, not of an epoch.
    evaluations = [entry for entry in result.trainer.state.log_history if "eval_loss" in entry][:-1]
    by_epoch = {-int(-entry["epoch"] // 1): entry for entry in evaluations}
    epochs = sorted({epoch + 1 for epoch in steps.epochs()})
    return tuple(
        Epoch(
            epoch=epoch,
            train_loss=steps.epoch_loss(epoch - 1),
            eval_loss=by_epoch.get(epoch, {}).get("eval_loss"),
            eval_accuracy=None if random else by_epoch.get(epoch, {}).get("eval_accuracy"),
        )
        for epoch in epochs
    )


def _with_counts(
    phases: dict[PhaseName, Phase], table: Any, evaluation: Dataset, cell: Cell
) -> dict[PhaseName, Phase]:
    """Return the phases with the documents and tokens that passed through each."""
    counted = dict(phases)
    first = table["step"] <= FIRST_STEPS
    for name, rows in (("first_steps", table[first]), ("train", table[~first])):
        if name in counted:
            counted[name] = counted[name].model_copy(
                update={
                    "steps": len(rows),
                    "samples": int(rows["samples"].sum()),
                    "real_tokens": int(rows["real_tokens"].sum()),
                    "padded_tokens": int(rows["padded_tokens"].sum()),
                    "data_wait_s": float(rows["data_wait_s"].sum()),
                }
            )
    phase = counted["evaluation"]
    documents = len(evaluation) * phase.entries
    mask = evaluation.with_format("arrow")[:]["attention_mask"].combine_chunks()
    real_tokens = pc.sum(mask.flatten()).as_py()
    padded = documents * cell.max_length if cell.padding == "max_length" else None
    counted["evaluation"] = phase.model_copy(
        update={
            "samples": documents,
            "real_tokens": real_tokens * phase.entries,
            "padded_tokens": padded,
        }
    )
    return counted


class _Reporter(TrainerCallback):
    """Tells the parent where the cell is, at most twice a second."""

    def __init__(self, emit: Callable[[Progress], None]) -> None:
        self._emit = emit
        self._last = 0.0
        self.phase: PhaseName = "load"
        self.step = 0

    def enter(self, phase: PhaseName) -> None:
        """Report that a phase begins."""
        self.phase = phase
        self._emit(Progress(phase=phase))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the step, with the last loss that was logged (reading a new one would synchronise)."""
        self.step = state.global_step
        now = time.monotonic()
        if now - self._last < PROGRESS_INTERVAL_S:
            return
        self._last = now
        losses = (entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
        self._emit(
            Progress(
                phase=self.phase,
                step=state.global_step,
                max_steps=state.max_steps,
                epoch=state.epoch,
                loss=next(losses, None),
            )
        )
