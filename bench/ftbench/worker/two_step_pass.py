"""Two-step pass: two optimizer steps of a cell, to measure peak memory only.

It uses the recipe's own model, arguments and Trainer, and takes two steps because Adam's state is created at
the end of the first. All examples are copies of the longest in the pool, so that no batch of a cell that pads to
the longest is wider. Beyond that, memory depends only on the number of examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc
import torch
import transformers
from datasets import Dataset

from ftbench.plan.cell import Cell
from ftbench.records.messages import Progress, TwoStepPass, TwoStepRequest, tokenised_key
from ftbench.records.readings import FIRST_STEPS, Memory, PhaseName, largest_readings
from ftbench.worker.measure.device import synchronizer, torch_device
from ftbench.worker.measure.memory_meters import plain_meters
from ftbench.worker.measure.meters.cpu_tensors import CpuTensorMemory
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.process.failures import failure_answer
from ftbench.worker.process.lifeline import guard_group
from ftbench.worker.process.malloc import set_malloc
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.recipe.metered_trainer import MeteredTrainer

# Settings that turn off everything but steps.
_SETTINGS: dict[str, Any] = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "logging_strategy": "no",
    "report_to": "none",
}
_NOT_IN_IT: dict[PhaseName, str] = {
    "train": "the pass ends after two steps; later steps have the peak of the first steps",
    "save": "the two-step pass saves nothing",
}
_NO_EVALUATION: dict[PhaseName, str] = {"evaluation": "this pass only trains"}


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Run the `TwoStepRequest` and return its status with a `TwoStepPass` or a `Failure`, as JSON data."""
    request = TwoStepRequest.model_validate(body)
    set_malloc(request.cell.malloc)
    device = torch_device(request.device)
    phases = PhaseBook(
        [CpuTensorMemory()] if request.tensors else plain_meters(device),
        synchronize=synchronizer(device),
        on_enter=lambda phase: emit(Progress(phase=phase)),
    )
    steps = StepBook()
    try:
        _limit(device, request.memory_limit_bytes)
        phases.enter("load")
        trainer = _trainer(request, device, phases, steps)
        trainer.train()
        if request.tensors:
            trainer.evaluate()
        phases.enter(None)
    except (Exception, MemoryError) as error:
        return failure_answer(error, phase=phases.failed, step=steps.finished)
    two_step = _result(phases, evaluated=request.tensors)
    return {"status": "ok", "two_step": two_step.model_dump(mode="json")}


def _limit(device: torch.device, limit_bytes: int | None) -> None:
    """Limit the memory that torch may reserve on a card; on the CPU the engine enforces a limit."""
    if limit_bytes is None or device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)


def _trainer(
    request: TwoStepRequest, device: torch.device, phases: PhaseBook, steps: StepBook
) -> MeteredTrainer:
    """Return the recipe's Trainer of the cell, limited to two steps."""
    transformers.utils.logging.disable_progress_bar()
    cell = first_steps_of(request.cell)
    if cell.settings.get("dataloader_num_workers"):
        guard_group()
    files = request.preparation.tokenised[tokenised_key(cell)]
    batch = int(cell.settings["per_device_eval_batch_size"]) * cell.num_processes
    evaluated = min(cell.data.eval_size, batch)
    pools = (
        _longest(files.train, _training_examples(cell)),
        _longest(files.evaluation, evaluated),
    )
    return make_trainer(
        cell,
        request.preparation.labels,
        pools,
        seed=request.seed,
        output=request.path(request.output),
        use_cpu=device.type == "cpu",
        phases=phases,
        steps=steps,
    )


def first_steps_of(cell: Cell, steps: int = FIRST_STEPS) -> Cell:
    """Return the cell limited to its first steps, without evaluation, logging and saving."""
    return cell.with_settings(**_SETTINGS, max_steps=steps)


def _training_examples(cell: Cell) -> int:
    """Return the number of training examples: those of three steps, or all if one step takes all.

    The third step's examples are for the loader, which fetches the next batch during a step.
    """
    of_a_step = cell.examples_per_step * cell.num_processes
    return cell.train_size if cell.train_size <= of_a_step else 3 * of_a_step


def _longest(file: str, count: int) -> Dataset:
    """Return the longest example of a tokenised pool, `count` times, in torch format."""
    pool = Dataset.from_file(file)
    lengths = pc.list_value_length(pool.with_format("arrow")[:]["input_ids"])
    longest = int(lengths.to_numpy().argmax())
    return pool.select([longest] * count).with_format("torch")


def _result(phases: PhaseBook, *, evaluated: bool) -> TwoStepPass:
    """Return the peaks of the phases that the pass measures, and the reason that it has no others."""
    absent = _NOT_IN_IT if evaluated else _NOT_IN_IT | _NO_EVALUATION
    # "train" starts at the end of step 2, and consists only of the end of training.
    booked = {n: phase.memory for n, phase in phases.phases().items() if n not in absent}
    return TwoStepPass(
        phases=booked,
        memory=largest_readings(list(booked.values())) if booked else Memory(),
        absent=phases.absent() | absent,
    )
