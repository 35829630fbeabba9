"""Schedule: how often a complete run does what, from a cell and the number of its processes. Pure.

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
    """How often a complete run does what: optimizer steps, documents trained on, evaluations, checkpoints.

    There are `world_size` processes, one per device, and each steps, evaluates and saves as often as is said
    here; `documents` and `examples_per_epoch` are those of all together. `eval_documents` and `eval_batches` are
    those of one evaluation. A checkpoint is one of those that training saves; the model that the recipe saves
    at its end is not in it.
    """

    steps: int
    documents: float
    examples_per_epoch: int
    evaluations: int
    eval_documents: int
    eval_batches: int
    checkpoints: int
    world_size: int = 1


def schedule_of(cell: Cell, world_size: int = 1) -> Schedule:
    """Return what the Trainer does in a cell's run, and the recipe after it.

    A part of an accumulation at an epoch's end is a step. Several processes take the batches in turn; at an
    epoch's end they are filled up from its beginning, so that all have as many and whole ones (accelerate's
    `BatchSamplerShard` with `even_batches`), or what is left is dropped.
    """
    settings = cell.settings
    batches = cell.train_size / cell.per_device_train_batch_size
    rounded = math.floor if settings.get("dataloader_drop_last") else math.ceil
    whole = rounded(rounded(batches) / world_size)  # of each process
    accumulated = int(settings.get("gradient_accumulation_steps") or 1)
    an_epoch = max(1, math.ceil(whole / accumulated))
    most = int(settings.get("max_steps") or -1)
    epochs = float(settings["num_train_epochs"])
    steps = most if most > 0 else math.ceil(epochs * an_epoch)
    trained = whole * cell.per_device_train_batch_size * world_size
    if world_size == 1:
        trained = min(cell.train_size, trained)
    evaluated = math.ceil(cell.data.eval_size / int(settings["per_device_eval_batch_size"]))
    return Schedule(
        steps=steps,
        documents=trained * steps / an_epoch,
        examples_per_epoch=trained,
        evaluations=_times("eval", settings, steps, an_epoch)
        + int(bool(settings.get("eval_on_start")))
        + 1,  # the recipe ends with one
        eval_documents=cell.data.eval_size,
        eval_batches=math.ceil(evaluated / world_size),
        checkpoints=_times("save", settings, steps, an_epoch),
        world_size=world_size,
    )


def _times(
    what: Literal["eval", "save"], settings: Mapping[str, Any], steps: int, an_epoch: int
) -> int:
    """Return how often training evaluates or saves, by its strategy.

    At every so many steps and at the last. What is the best so far is saved at most as often as it is
    evaluated, which is what `best` counts as.
    """
    strategy = str(settings.get(f"{what}_strategy", "no"))
    if strategy == "no":
        return 0
    if strategy == "best":
        return _times("eval", settings, steps, an_epoch)
    every, unit = (
        (an_epoch, an_epoch) if strategy == "epoch" else (_every(what, settings, steps), 1)
    )
    first = float(settings.get("eval_delay") or 0) * unit if what == "eval" else 0.0
    if first > steps:
        return 0
    too_early = max(0, math.ceil(first / every) - 1)
    return math.ceil(steps / every) - too_early


def _every(what: str, settings: Mapping[str, Any], steps: int) -> int:
    """Return the steps between two, or their share of all: what `TrainingArguments` falls back to."""
    other = settings.get("logging_steps") if what == "eval" else None
    every = float(settings.get(f"{what}_steps") or other or 500)
    return math.ceil(every * steps) if every < 1 else int(every)
