"""Trial: two optimizer steps of a cell, for the peak of memory alone.

The recipe's own model, arguments and Trainer. Two steps, because Adam's state is made at the end
of the first. Every batch is of the longest document in the pool, so none is wider in a cell that
pads to the longest; how many documents there are is all that memory depends on besides.
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
from ftbench.records.record import FIRST_STEPS, Memory, PhaseName, largest_readings
from ftbench.worker.measure.device import synchronizer, torch_device
from ftbench.worker.measure.memory_meters import plain_meters
from ftbench.worker.measure.meters.cpu_tensors import CpuTensorMemory
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.process.failures import failure_answer
from ftbench.worker.process.malloc import set_malloc
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.recipe.metered_trainer import MeteredTrainer

# What is changed in a cell's settings beside where it ends: all that isn't a step.
_SETTINGS: dict[str, Any] = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "logging_strategy": "no",
    "report_to": "none",
}
_NOT_IN_IT: dict[PhaseName, str] = {
    "train": "the pass ends after two steps: the first steps' peak is the later ones' too",
    "save": "nothing is saved in the two-step pass",
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
    two_step = _trial(phases, evaluated=request.tensors)
    return {"status": "ok", "two_step": two_step.model_dump(mode="json")}


def _limit(device: torch.device, limit_bytes: int | None) -> None:
    """Have torch reserve no more than this on a card; on the CPU the engine sees to a limit."""
    if limit_bytes is None or device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)


def _trainer(
    request: TwoStepRequest, device: torch.device, phases: PhaseBook, steps: StepBook
) -> MeteredTrainer:
    """Return the recipe's Trainer of the cell, cut to two steps."""
    transformers.utils.logging.disable_progress_bar()
    cell = first_steps_of(request.cell)
    files = request.preparation.tokenised[tokenised_key(cell)]
    evaluated = min(cell.data.eval_size, int(cell.settings["per_device_eval_batch_size"]))
    pools = (
        _longest(files.train, _training_documents(cell)),
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
    """Return the cell with the settings that end it after its first steps, and all that isn't a step off."""
    return cell.with_settings(**_SETTINGS, max_steps=steps)


def _training_documents(cell: Cell) -> int:
    """Return how many documents to train on: three steps' worth, or one step's where it has no more.

    The third is there for the loader, which fetches the next batch while a step is under way.
    """
    few = cell.train_size <= cell.examples_per_step
    return cell.train_size if few else 3 * cell.examples_per_step


def _longest(file: str, count: int) -> Dataset:
    """Return the longest document of a tokenised pool, `count` times, in torch format."""
    pool = Dataset.from_file(file)
    lengths = pc.list_value_length(pool.with_format("arrow")[:]["input_ids"])
    longest = int(lengths.to_numpy().argmax())
    return pool.select([longest] * count).with_format("torch")


def _trial(phases: PhaseBook, *, evaluated: bool) -> TwoStepPass:
    """Return the peaks of the phases that the pass is for, and why it has no others."""
    absent = _NOT_IN_IT if evaluated else _NOT_IN_IT | _NO_EVALUATION
    # "train" is begun at the end of step 2, and nothing but the end of training is in it.
    booked = {n: phase.memory for n, phase in phases.phases().items() if n not in absent}
    return TwoStepPass(
        phases=booked,
        memory=largest_readings(list(booked.values())) if booked else Memory(),
        absent=phases.absent() | absent,
    )
