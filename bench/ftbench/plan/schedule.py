"""Schedule: the numbers of steps, evaluations and checkpoints of a cell's complete run. Pure.

The arithmetic of `Trainer.train` and `DefaultFlowCallback` (transformers 5), and of the recipe around it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from ftbench.plan.cell import Cell


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The counts of a complete run: optimizer steps, training examples, evaluations, checkpoints.

    There are `world_size` processes, one per device; `steps`, `evaluations`, `eval_batches` and `checkpoints`
    are counts per process. `documents` (training examples over all epochs) and `examples_per_epoch` are summed
    over the processes. `eval_documents` (examples) and `eval_batches` are those of one evaluation. `checkpoints`
    are those that training saves, without the model that the recipe saves at its end.
    """

    steps: int
    documents: float
    examples_per_epoch: int
    evaluations: int
    eval_documents: int
    eval_batches: int
    checkpoints: int
    world_size: int = 1


def schedule_of(cell: Cell, world_size: int | None = None) -> Schedule:
    """Return the counts of a cell's run: those of the Trainer, and the recipe's evaluation after it.

    Without `world_size`, the cell says how many processes there are.
    An incomplete accumulation at the end of an epoch is a step. Several processes take the batches in turn. At
    the end of an epoch, batches are filled up with examples from its beginning, so that all processes have
    the same number of whole batches (accelerate's `BatchSamplerShard` with `even_batches`); with
    `dataloader_drop_last` the rest is dropped instead.
    """
    settings = cell.settings
    world_size = world_size or cell.num_processes
    batches = cell.train_size / cell.per_device_train_batch_size
    rounded = math.floor if settings.get("dataloader_drop_last") else math.ceil
    whole = rounded(rounded(batches) / world_size)  # of each process
    accumulated = int(settings.get("gradient_accumulation_steps") or 1)
    per_epoch = max(1, math.ceil(whole / accumulated))
    most = int(settings.get("max_steps") or -1)
    epochs = float(settings["num_train_epochs"])
    steps = most if most > 0 else math.ceil(epochs * per_epoch)
    trained = whole * cell.per_device_train_batch_size * world_size
    if world_size == 1:
        trained = min(cell.train_size, trained)
    evaluated = math.ceil(cell.data.eval_size / int(settings["per_device_eval_batch_size"]))
    return Schedule(
        steps=steps,
        documents=trained * steps / per_epoch,
        examples_per_epoch=trained,
        evaluations=_times("eval", settings, steps, per_epoch)
        + int(bool(settings.get("eval_on_start")))
        + 1,  # the recipe ends with one
        eval_documents=cell.data.eval_size,
        eval_batches=math.ceil(evaluated / world_size),
        checkpoints=_times("save", settings, steps, per_epoch),
        world_size=world_size,
    )


def _times(
    what: Literal["eval", "save"], settings: Mapping[str, Any], steps: int, per_epoch: int
) -> int:
    """Return how often training evaluates or saves, by its strategy: every n steps, and at the last step.

    The strategy `best` saves at most once per evaluation, and is counted as once per evaluation.
    """
    strategy = str(settings.get(f"{what}_strategy", "no"))
    if strategy == "no":
        return 0
    if strategy == "best":
        return _times("eval", settings, steps, per_epoch)
    every, unit = (
        (per_epoch, per_epoch) if strategy == "epoch" else (_every(what, settings, steps), 1)
    )
    first = float(settings.get("eval_delay") or 0) * unit if what == "eval" else 0.0
    if first > steps:
        return 0
    too_early = max(0, math.ceil(first / every) - 1)
    return math.ceil(steps / every) - too_early


def _every(what: str, settings: Mapping[str, Any], steps: int) -> int:
    """Return the number of steps between two evaluations or saves; a value below 1 is a share of all steps.

    The fallbacks are those of `TrainingArguments`.
    """
    other = settings.get("logging_steps") if what == "eval" else None
    every = float(settings.get(f"{what}_steps") or other or 500)
    return math.ceil(every * steps) if every < 1 else int(every)
