"""The interface of a task: its columns, features, labels, model class and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.records.scores import Score

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of both pools in the model's format, and the names of the classes, empty for a regression."""

    train: pa.Array
    evaluation: pa.Array
    names: tuple[str, ...] = ()


class Task(Protocol):
    """A task of fine-tuning. A new one is a file here, an entry in `tasks.py` and a name in `TaskName`."""

    name: TaskName
    auto_model: Any  # a class of transformers' `AutoModelFor...`
    peft_task: str  # a member of `peft.TaskType`
    scores: tuple[str, ...]  # names of `ftbench.plan.scores`, the headline score first
    filler: int | float  # a label for artificial examples
    has_classes: bool  # labels are classes, not numbers

    def columns(self, source: DataSource) -> dict[str, str]:
        """Return the columns of the data set, by their names in a pool (`text`, `label`, ...)."""
        ...

    def strata(self, labels: pa.ChunkedArray) -> list[Array]:
        """Return row numbers in groups; each is split between training and evaluation in the same ratio."""
        ...

    def read_labels(
        self,
        train: pa.ChunkedArray,
        evaluation: pa.ChunkedArray,
        *,
        names: Sequence[str] | None,
        column: str,
    ) -> Labels:
        """Return the labels of both pools; `names` are the data set's own names of its classes.

        Raises WorkloadError for labels that cannot be learned.
        """
        ...

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a model's config that follow from the task and its classes."""
        ...

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[str]],
        *,
        max_length: int,
        pad: bool,
    ) -> Mapping[str, Any]:
        """Return the features of a batch of a pool's columns, truncated and, with `pad`, padded to a length."""
        ...

    def guess_loss(self, train_labels: Array) -> float:
        """Return the mean training loss of a model that ignores the text and knows the labels' distribution."""
        ...

    def answer(self, outputs: Array, references: Array, train_labels: Array) -> tuple[Score, ...]:
        """Return the scores of a model's outputs on the evaluation examples, without those that are not defined.

        Must not raise for outputs that are not finite, since a training may diverge.
        """
        ...
