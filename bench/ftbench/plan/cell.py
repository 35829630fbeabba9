"""A cell: one point of the grid, a complete fine-tune, named by the hash of all that decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import Field

from ftbench.base.frozen import FrozenModel
from ftbench.plan.parallel import Parallel, Strategy
from ftbench.plan.profile import (
    RECIPE,
    LoraSettings,
    Malloc,
    Method,
    Packing,
    Padding,
    Quantization,
    WeightsDtype,
)
from ftbench.plan.settings import (
    NON_TRAINER_AXES,
    WORKLOAD_SETTINGS,
    is_default,
    meaning_of,
    setting,
    without_defaults,
)
from ftbench.plan.sources import DataSource, ModelSource

CELL_ID_DIGITS = 12
# Axes that older cells did not have: at its default value each is left out of the identity, so that ids stay.
_LATER_AXES = (
    "method",
    "malloc",
    "packing",
    "dtype",
    "quantization",
    "num_processes",
    "strategy",
)


class Cell(FrozenModel):
    """One point of the grid: a complete fine-tune, named by the hash of all that decides it."""

    model: ModelSource = Field(description="The model and its tokenizer.")
    data: DataSource = Field(description="The data set, and how examples are read from it.")
    max_length: int = Field(description=meaning_of("max_length"))
    train_size: int = Field(description=meaning_of("train_size"))
    padding: Padding = Field(description=meaning_of("padding"))
    attn_implementation: str = Field(description=meaning_of("attn_implementation"))
    training: tuple[tuple[str, str], ...] = Field(
        description="Fields of transformers.TrainingArguments: each name, and its value as JSON text."
    )
    method: Method = Field("full", description=meaning_of("method"))
    lora: LoraSettings | None = Field(
        None, description="LoRA's settings; only if the method is LoRA."
    )
    malloc: Malloc = Field("default", description=meaning_of("malloc"))
    packing: Packing = Field("none", description=meaning_of("packing"))
    dtype: WeightsDtype = Field("float32", description=meaning_of("dtype"))
    quantization: Quantization = Field("none", description=meaning_of("quantization"))
    num_processes: int = Field(1, description=meaning_of("num_processes"))
    strategy: Strategy = Field("ddp", description=meaning_of("strategy"))
    parallel: Parallel | None = Field(
        None, description="How processes share the model; only if there are several."
    )

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Return the training settings, fields of `transformers.TrainingArguments`, by name."""
        return {name: json.loads(value) for name, value in self.training}

    def with_settings(self, **changes: Any) -> Cell:
        """Return the cell with other training settings; the rest stays."""
        return self.model_copy(update={"training": training_of({**self.settings, **changes})})

    def with_shape(self, batch: int, length: int) -> Cell:
        """Return the cell at another batch size and sequence length."""
        of_batch = self.with_settings(per_device_train_batch_size=batch)
        return of_batch.model_copy(update={"max_length": length})

    @property
    def batches_vary(self) -> bool:
        """Return whether the numbers of tokens of two batches can differ."""
        return self.padding == "longest" or self.packing == "padding-free"

    @property
    def seed(self) -> int:
        """Return the seed of replicate 0."""
        return int(self.settings["seed"])

    @property
    def per_device_train_batch_size(self) -> int:
        """Return the batch size of one forward pass, in training examples."""
        return int(self.settings["per_device_train_batch_size"])

    @property
    def examples_per_step(self) -> int:
        """Return the training examples per optimizer step: those of all accumulated batches."""
        accumulated = int(self.settings.get("gradient_accumulation_steps", 1))
        return self.per_device_train_batch_size * accumulated

    @property
    def product_dtype(self) -> WeightsDtype:
        """Return the type of training's matrix products: autocast's, else that of the weights."""
        if self.settings.get("bf16"):
            return "bfloat16"
        return "float16" if self.settings.get("fp16") else self.dtype

    @cached_property
    def facets(self) -> Mapping[str, Any]:
        """Return everything in which cells may differ, by its column in tables; each value is plain.

        Axes and training settings keep their names. A setting written out at its default value is left out, as
        if the profile did not name it.
        """
        data = self.data.model_dump(mode="json", exclude={"source"})
        data = without_defaults(data, kept=data.keys() - set(WORKLOAD_SETTINGS))
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
        if self.model.missing_weights != "refused":
            workload["missing weights"] = self.model.missing_weights
        own = {name: getattr(self, name) for name in NON_TRAINER_AXES}
        said = without_defaults(self.settings, kept=RECIPE)
        settings = {name: plain_value(value) for name, value in said.items()}
        return workload | settings | self._facets_of_tables | own

    @property
    def _facets_of_tables(self) -> dict[str, Any]:
        """Return LoRA's settings, and those of several processes, that differ from their defaults.

        So LoRA cells differ from cells of other methods in `method` only, not in six columns.
        """
        found: dict[str, Any] = {}
        for table in ("lora", "parallel"):
            settings = getattr(self, table)
            chosen = settings.model_dump(mode="json", exclude_defaults=True) if settings else {}
            found |= {f"{table}.{k}": plain_value(v) for k, v in chosen.items() if k != "strategy"}
        return found

    def setting(self, name: str) -> Any:
        """Return the cell's value of an axis or a training setting, or its default if the cell does not name it."""
        if name in NON_TRAINER_AXES:
            return getattr(self, name)
        return self.settings.get(name, setting(name).default)

    def value(self, axis: str) -> Any:
        """Return the cell's value on an axis as a plain value: its default if not named, None without a default."""
        return self.facets.get(axis, plain_value(setting(axis).default))

    @cached_property
    def cell_id(self) -> str:
        """Return the hash of the cell's content: revisions, axes and settings, but no paths."""
        identity = self.model_dump(mode="json")
        del identity["model"]["weights_format"]  # the hash of the files says which were read
        for name in _LATER_AXES:
            if is_default(name, getattr(self, name)):
                del identity[name]
        # Neither had older cells these fields.
        if self.model.missing_weights == "refused":
            del identity["model"]["missing_weights"]
        for name in WORKLOAD_SETTINGS:
            if is_default(name, getattr(self.data, name)):
                del identity["data"][name]
        for table in ("lora", "parallel"):
            if identity[table] is None:
                del identity[table]
        for part in (
            identity["model"]["source"],
            identity["model"]["tokenizer"],
            identity["data"]["source"],
        ):
            del part["reference"], part["location"], part["kind"]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:CELL_ID_DIGITS]


def training_of(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return training settings as a cell has them: sorted by name, each value as JSON text."""
    return tuple(sorted((name, json.dumps(v, sort_keys=True)) for name, v in settings.items()))


def plain_value(value: Any) -> Any:
    """Return a value that can be compared, sorted and shown: text for lists and tables."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value
