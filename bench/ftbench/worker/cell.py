"""Cell: one replicate of one cell, from request to measurement."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import ftbench.worker.tasks.accuracy  # noqa: F401 - loaded here, not in the first evaluation
from ftbench.plan.cell import Cell
from ftbench.records.measurement import Measurement, RankMeasurement, RunWarning
from ftbench.records.messages import CellRequest, Progress, tokenised_key
from ftbench.records.readings import FIRST_STEPS, Epoch, Phase, PhaseName, StepSummary
from ftbench.worker.data.facts import choice_warning, data_warnings
from ftbench.worker.data.tokenised import read_tokenised
from ftbench.worker.measure.device import (
    describe,
    measure_matmul,
    synchronizer,
    torch_device,
)
from ftbench.worker.measure.divergence import divergence_warnings, first_not_finite
from ftbench.worker.measure.memory_meters import MemoryMeters
from ftbench.worker.measure.meters.machine import MachineLoad, load_warnings
from ftbench.worker.measure.meters.processor import fault_warning
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook, step_warnings, summarise, write_steps
from ftbench.worker.process.failures import failure_answer
from ftbench.worker.process.lifeline import guard_group
from ftbench.worker.process.malloc import set_malloc
from ftbench.worker.recipe.finetune import Result, finetune
from ftbench.worker.recipe.trackers import PACKAGES, report_into, reports_to, versions
from ftbench.worker.tasks.pool_labels import labels_of
from ftbench.worker.tasks.tasks import task_of

PROGRESS_INTERVAL_S = 0.5
RANDOM = "the weights are random, so only the cost is meaningful"
MATMUL_AGAIN = (
    "the peak FLOP/s of a matrix product were measured again after training: the first measurement was"
    " below the rate of the steps"
)
NOT_TIMED = "only DistributedDataParallel measures its communication"
UNDEFINED = "it is not defined: the model gives the same answer to all examples, or answers that are not numbers"


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Run the `CellRequest` and return its status with a `Measurement` or a `Failure`, as JSON data."""
    began = time.perf_counter()
    request = CellRequest.model_validate(body)
    set_malloc(request.cell.malloc)
    device = torch_device(request.device)
    memory = MemoryMeters(device)
    phases = PhaseBook(
        memory.meters,
        synchronize=synchronizer(device),
        on_enter=lambda phase: emit(Progress(phase=phase)),
        energy_j=memory.sampled.energy_j,
    )
    steps = StepBook()
    machine = MachineLoad()
    try:
        phases.enter("load")
        result, pools = _finetune(request, device, phases, steps, emit)
        phases.enter(None)
        table = steps.table(request.preparation.step_flops(request.cell.method).coefficients)
        write_steps(table, request.path(request.steps_file))
        sampling = memory.close(request.path(request.samples_file))
    except (Exception, MemoryError) as error:
        return failure_answer(error, phase=phases.failed, step=steps.finished)
    notes = _Notes(phases.absent(), memory.run_warnings(), first_not_finite(table))
    notes.warnings += _warnings(request, result, table, pools[0])
    if sampling is None:
        notes.absent["sampling"] = "the sampler ended before the cell did"
    booked = _with_counts(phases.phases(), table, pools[1], request.cell, notes)
    notes.warnings += fault_warning(booked.get("train"), request.cell.malloc)
    # These calls add to the notes, so they come before the measurement is made.
    figures = {
        "epochs": _epochs(request.cell, result, steps, notes),
        **_results(request, result, notes),
        **_machine(request.cell, machine, notes),
    }
    summary, peak = _steps(request, table, device, notes)
    rank = RankMeasurement(
        device=describe(device),
        model_device=result.model_device,
        phases=booked,
        steps=summary,
        memory=phases.peaks(),
        idle=phases.idle,
        sampling=sampling,
        collectives=result.collectives,
    )
    measurement = Measurement(
        ranks=(rank,),
        **_model_facts(request.cell, result),
        sources=phases.sources(),
        peak_matmul_flops=peak,
        metering_s=phases.metering_s,
        **_seconds(booked),
        **figures,
        worker_s=time.perf_counter() - began,
        absent=notes.absent,
        warnings=tuple(notes.warnings),
    )
    return {"status": "ok", "measurement": measurement.model_dump(mode="json")}


def _model_facts(cell: Cell, result: Result) -> dict[str, Any]:
    return {
        "packages": _own_packages(cell),
        "parameters": result.parameters,
        "trainable_parameters": result.trainable_parameters,
        "checkpoint": result.checkpoint,
        "attn_implementation": result.attention,
    }


def _seconds(phases: dict[PhaseName, Phase]) -> dict[str, float]:
    """Return the wall time of all phases, and that of training; a single step has no phase `train`."""
    walls = {name: phase.wall_s for name, phase in phases.items()}
    trained = [walls[name] for name in ("first_steps", "train") if name in walls]
    return {"total_s": sum(walls.values()), "train_s": sum(trained)}


def _own_packages(cell: Cell) -> dict[str, str]:
    """Return the versions of packages that only some cells use: peft, and the trackers of `report_to`."""
    reporting = [package for name in reports_to(cell.settings) for package in PACKAGES[name]]
    return versions((*(["peft"] if cell.method == "lora" else []), *reporting))


@dataclasses.dataclass
class _Notes:
    """The reasons that figures are absent, by path, and the warnings of the cell.

    `not_finite_from` is the first step whose loss is not a finite number.
    """

    absent: dict[str, str]
    warnings: list[RunWarning]
    not_finite_from: int | None = None

    def finite(self, path: str, value: float | None) -> float | None:
        """Return a finite number; None for any other, with the reason and a warning."""
        if value is None or math.isfinite(value):
            return value
        since = f" from step {self.not_finite_from} on" if self.not_finite_from else ""
        self.absent[path] = f"it is not a finite number{since}: the training diverged"
        if not any(warning.name == "diverged" for warning in self.warnings):
            message = "a loss of the evaluation is not a finite number: the training diverged"
            self.warnings.append(RunWarning(name="diverged", message=message))
        return None


def _guess_loss(cell: Cell, pool: Dataset) -> float:
    """Return the loss of a model that ignores the text, on the training examples."""
    return task_of(cell.data).guess_loss(labels_of(pool))


def _warnings(
    request: CellRequest, result: Result, table: pd.DataFrame, train: Dataset
) -> list[RunWarning]:
    """Return the warnings about the workload, the model and the loss."""
    return [
        *request.preparation.warnings,
        *_model_warnings(request.cell, result),
        *divergence_warnings(table, _guess_loss(request.cell, train)),
    ]


def _model_warnings(cell: Cell, result: Result) -> list[RunWarning]:
    """Return the warnings about the model as it was loaded: its attention, and parameters that are new."""
    found = []
    if result.attention is not None and result.attention != cell.attn_implementation:
        message = (
            f"the model has no {cell.attn_implementation} attention: it ran with {result.attention}"
        )
        found.append(RunWarning(name="attention", message=message))
    checkpoint = result.checkpoint
    if checkpoint is not None and checkpoint.new_in_body:
        message = (
            f"{checkpoint.new_in_body} parameters outside the head are not in the checkpoint and began random,"
            " which the workload accepts (missing_weights)"
        )
        found.append(RunWarning(name="new_weights", message=message, value=checkpoint.new_in_body))
    return found


def _finetune(
    request: CellRequest,
    device: torch.device,
    phases: PhaseBook,
    steps: StepBook,
    emit: Callable[[Progress], None],
) -> tuple[Result, tuple[Dataset, Dataset]]:
    """Run the recipe on the prepared data; return its result, and both pools of examples."""
    cell = request.cell
    if cell.settings.get("dataloader_num_workers"):
        guard_group()
    transformers.utils.logging.disable_progress_bar()
    files = request.preparation.tokenised[tokenised_key(cell)]
    pools = (
        read_tokenised(files.train, cell.train_size),
        read_tokenised(files.evaluation, cell.data.eval_size),
    )
    report_into(Path(request.path(request.reports)), cell.settings)
    result = finetune(
        cell,
        request.preparation.labels,
        pools,
        seed=request.seed,
        output=request.path(request.output),
        use_cpu=device.type == "cpu",
        phases=phases,
        steps=steps,
        callbacks=[_Reporter(emit, phases, steps)],
        run_name=Path(request.reports).name,
    )
    return result, pools


def _results(request: CellRequest, result: Result, notes: _Notes) -> dict[str, Any]:
    """Return the final losses and scores; the notes get warnings of data that scores cannot be trusted on."""
    cell = request.cell
    if cell.num_processes > 1 and result.collectives is None:
        notes.absent["collectives"] = NOT_TIMED
    notes.warnings += data_warnings(request.preparation.data, cell, request.preparation.train_pool)
    random = cell.model.weights == "random"
    scores = () if random else result.scores
    if random:
        notes.absent["scores"] = RANDOM
    for name in task_of(cell.data).scores:
        if not random and name not in {score.name for score in scores}:
            notes.absent[f"scores.{name}"] = UNDEFINED
    return {
        # The Trainer leaves losses that are not finite out of its mean.
        "train_loss": notes.finite(
            "train_loss", result.train_loss if notes.not_finite_from is None else math.nan
        ),
        "eval_loss": notes.finite("eval_loss", result.evaluation.get("eval_loss")),
        "scores": scores,
    }


def _steps(
    request: CellRequest, table: pd.DataFrame, device: torch.device, notes: _Notes
) -> tuple[StepSummary | None, float | None]:
    """Return the statistics of the steps, and the peak FLOP/s that their MFU refers to.

    An MFU above 1 shows that the peak was measured on a busy machine: it is measured again.
    """
    preparation, dtype = request.preparation, request.cell.product_dtype
    peak = preparation.peak_matmul_flops.get(dtype)
    absent = preparation.step_flops(request.cell.method).absent
    summary = summarise(table, peak)
    if peak and summary is not None and summary.mfu is not None and summary.mfu > 1:
        peak = max(peak, measure_matmul(device, dtype))
        summary = summarise(table, peak)
        notes.warnings.append(RunWarning(name="note", message=MATMUL_AGAIN))
    if summary is None:
        notes.absent["steps"] = f"the run had no step after the first {FIRST_STEPS}"
    elif absent:
        notes.absent["steps.flops_per_s"] = absent
        notes.absent["steps.mfu"] = absent
    notes.warnings += step_warnings(table, summary)
    return summary, peak


def _machine(cell: Cell, machine: MachineLoad, notes: _Notes) -> dict[str, Any]:
    """Return the load of the machine during the cell, and add its warnings to the notes."""
    load = machine.read()
    for name, value in load:
        if value is None:
            notes.absent[f"load.{name}"] = "the kernel does not count it here"
    notes.warnings += load_warnings(load)
    loaders = cell.settings.get("dataloader_num_workers", 0)
    if loaders:
        notes.warnings.append(
            RunWarning(
                name="loader_processes",
                message=f"peak RSS does not include the {loaders} data-loader processes; PSS does",
                value=loaders,
            )
        )
    return {"load": load}


def _epochs(cell: Cell, result: Result, steps: StepBook, notes: _Notes) -> tuple[Epoch, ...]:
    """Return losses and scores after each epoch; the last evaluation in it counts."""
    # The recipe's final `evaluate()` is that of the best model, not of an epoch.
    evaluations = [entry for entry in result.log if "eval_loss" in entry][:-1]
    notes.warnings += choice_warning(cell, len(evaluations))
    by_epoch = {math.ceil(entry["epoch"]): entry for entry in evaluations}
    random = cell.model.weights == "random"
    if random:
        notes.absent["epochs.scores"] = RANDOM
    names = () if random else task_of(cell.data).scores
    epochs = []
    for epoch in steps.epochs():
        found = by_epoch.get(epoch + 1, {})
        if not found:
            notes.absent[f"epochs.{epoch + 1}.eval_loss"] = "no evaluation in this epoch"
        epochs.append(
            Epoch(
                epoch=epoch + 1,
                train_loss=notes.finite(f"epochs.{epoch + 1}.train_loss", steps.epoch_loss(epoch)),
                eval_loss=notes.finite(f"epochs.{epoch + 1}.eval_loss", found.get("eval_loss")),
                scores={name: found[f"eval_{name}"] for name in names if f"eval_{name}" in found},
            )
        )
    return tuple(epochs)


def _with_counts(
    phases: dict[PhaseName, Phase],
    table: pd.DataFrame,
    evaluation: Dataset,
    cell: Cell,
    notes: _Notes,
) -> dict[PhaseName, Phase]:
    """Return the phases with the numbers of steps, examples and tokens of each."""
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
    examples = len(evaluation) * phase.entries
    mask = evaluation.with_format("arrow")[:]["attention_mask"].combine_chunks()
    real_tokens = pc.sum(mask.flatten()).as_py()
    padded = examples * cell.max_length if cell.padding == "max_length" else None
    if padded is None:
        notes.absent["phases.evaluation.padded_tokens"] = (
            "each batch is padded to the length of its longest example"
        )
    counted["evaluation"] = phase.model_copy(
        update={
            "samples": examples,
            "real_tokens": real_tokens * phase.entries,
            "padded_tokens": padded,
        }
    )
    return counted


class _Reporter(TrainerCallback):
    """Reports the progress of training to the parent, at most twice per second."""

    def __init__(
        self, emit: Callable[[Progress], None], phases: PhaseBook, steps: StepBook
    ) -> None:
        self._emit = emit
        self._phases = phases
        self._steps = steps
        self._last = 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the step and the loss; on CUDA the last logged loss, which needs no synchronisation."""
        now = time.monotonic()
        if now - self._last < PROGRESS_INTERVAL_S:
            return
        self._last = now
        logged = (entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
        loss = self._steps.last_loss() if args.device.type == "cpu" else next(logged, None)
        if loss is not None and not math.isfinite(loss):
            loss = None
        self._emit(
            Progress(
                phase=self._phases.running or "train",
                step=state.global_step,
                max_steps=state.max_steps,
                epoch=state.epoch,
                loss=loss,
            )
        )
