"""A cell: one point of the grid, a complete fine-tune, named by the content of all that decides it."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from ftbench.base.frozen import FrozenModel
from ftbench.plan.profile import (
    LoraSettings,
    Malloc,
    Method,
)
from ftbench.plan.sources import DataSource, ModelSource

CELL_ID_DIGITS = 12
# Axes that are not fields of TrainingArguments.
NON_TRAINER_AXES = (
    "max_length",
    "train_size",
    "padding",
    "attn_implementation",
    "method",
    "malloc",
)
# Settings that are a number in the optimizer's arithmetic and move no cost: runs that differ in them
# alone are runs of one cell. Whatever else tells cells apart splits them into groups.
COSTLESS = frozenset(
    {
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "warmup_ratio",
        "warmup_steps",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "data_seed",
    }
)


class Cell(FrozenModel):
    """One point of the grid: a complete fine-tune, named by the content of all that decides it."""

    model: ModelSource
    data: DataSource
    max_length: int
    train_size: int
    padding: str
    attn_implementation: str
    training: tuple[tuple[str, str], ...]  # name and value as JSON text: hashable, whatever it is
    method: Method = "full"
    lora: LoraSettings | None = None  # where the method is LoRA, and only there
    malloc: Malloc = "default"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the training settings, fields of `transformers.TrainingArguments`, by name."""
        return {name: json.loads(value) for name, value in self.training}

    @property
    def seed(self) -> int:
        """Return the seed of replicate 0."""
        return int(self.settings["seed"])

    @property
    def per_device_train_batch_size(self) -> int:
        """Return the batch size, in documents."""
        return int(self.settings["per_device_train_batch_size"])

    @property
    def examples_per_step(self) -> int:
        """Return how many documents an optimizer step takes: the accumulated batches."""
        accumulated = int(self.settings.get("gradient_accumulation_steps", 1))
        return self.per_device_train_batch_size * accumulated

    @property
    def facets(self) -> dict[str, Any]:
        """Return all that tells cells apart, by the name a table has for it; each value is plain.

        Axes and training settings have their own names; the rest of the workload comes after.
        """
        data = self.data.model_dump(mode="json", exclude={"source"})
        workload = {
            "model": self.model.source.reference,
            "model revision": self.model.source.revision,
            "weights": self.model.weights,
            "tokenizer revision": self.model.tokenizer.revision,
            "dataset": self.data.source.reference,
            "dataset revision": self.data.source.revision,
            **{f"config.{name}": value for name, value in self.model.config},
            **{name: plain_value(value) for name, value in data.items()},
        }
        own = {name: getattr(self, name) for name in NON_TRAINER_AXES}
        settings = {name: plain_value(value) for name, value in self.settings.items()}
        return workload | settings | self._lora_facets | own

    @property
    def _lora_facets(self) -> dict[str, Any]:
        """Return LoRA's settings that are not the default ones.

        So cells of other methods beside such of LoRA differ in `method`, not in six columns.
        """
        chosen = self.lora.model_dump(mode="json", exclude_defaults=True) if self.lora else {}
        return {f"lora.{name}": plain_value(value) for name, value in chosen.items()}

    def setting(self, name: str) -> Any:
        """Return an axis of the cell's own or a training setting as it is; None where it has none."""
        return getattr(self, name) if name in NON_TRAINER_AXES else self.settings.get(name)

    def value(self, axis: str) -> Any:
        """Return this cell's value on an axis, None where it has none."""
        return self.facets.get(axis)

    @cached_property
    def cell_id(self) -> str:
        """Return the hash of the cell's content: revisions, axes and settings, but no paths."""
        identity = self.model_dump(mode="json")
        del identity["model"]["weights_format"]  # the files' hash says what was read
        if self.method == "full":  # cells had no method once: their names stay
            del identity["method"]
        if self.malloc == "default":  # and no malloc
            del identity["malloc"]
        if self.lora is None:
            del identity["lora"]
        for part in (
            identity["model"]["source"],
            identity["model"]["tokenizer"],
            identity["data"]["source"],
        ):
            del part["reference"], part["location"], part["kind"]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:CELL_ID_DIGITS]


def plain_value(value: Any) -> Any:
    """Return a value that can be compared, sorted and shown: text for lists and tables."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
