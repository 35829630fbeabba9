"""The interface of a task: its columns, features, labels, model class and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.records.scores import Score

Array = npt.NDArray[Any]


# The columns of a pool: texts by these names, and the labels of examples that have them.
TEXT, PAIR, LABEL = "text", "text_pair", "label"
COMPLETION, MESSAGES = "completion", "messages"
# The label of a token that the loss leaves out, in transformers and in torch's cross entropy.
IGNORED = -100

# text      one text per row
# label     one class or number per row
# words     a list of words per row, and `word_labels` one class for each of them
# messages  a conversation per row: a list of objects with `role` and `content`
ColumnKind = Literal["text", "label", "words", "word_labels", "messages"]


class Column(NamedTuple):
    """A column of the data set: its name there, the setting of `[workload]` that names it, and its values."""

    name: str
    setting: str
    kind: ColumnKind


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of both pools in the model's format, and the names of the classes, empty for a regression."""

    train: pa.Array
    evaluation: pa.Array
    names: tuple[str, ...] = ()


class Task(Protocol):
    """A task of fine-tuning, for one data set. `docs/tasks.md` shows how to add one."""

    name: TaskName
    auto_model: Any  # a class of transformers' `AutoModelFor...`
    peft_task: str | None  # a member of `peft.TaskType`, None if it has none
    new_head: bool  # the model gets a head that the checkpoint does not have
    scores: tuple[str, ...]  # names of `ftbench.plan.scores`, the headline score first
    has_classes: bool  # each example has one class
    loss_per_token: bool  # the loss is a mean over labelled tokens, not over examples

    def __init__(self, source: DataSource) -> None:
        """Make the task of a data set, with the columns and settings that its profile names."""
        ...

    @property
    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the data set, by their names in a pool (`text`, `label`, ...)."""
        ...

    @property
    def reduce_logits(self) -> Callable[[Any, torch.Tensor], torch.Tensor] | None:
        """Return the Trainer's `preprocess_logits_for_metrics`: what an evaluation keeps of a batch's outputs.

        None keeps all of them.
        """
        ...

    def strata(self, examples: pa.Table) -> list[Array]:
        """Return row numbers in groups; each is split between training and evaluation in the same ratio."""
        ...

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a model's config that follow from the task and its classes."""
        ...

    def plain_texts(self, batch: Mapping[str, Sequence[Any]]) -> list[str]:
        """Return the text of each example of a batch of a pool's columns, to judge the tokenizer by."""
        ...

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch: Mapping[str, Sequence[Any]],
        *,
        max_length: int,
        pad: bool,
        evaluation: bool = False,
    ) -> Mapping[str, Any]:
        """Return the features of a batch of a pool's columns, truncated and, with `pad`, padded to a length.

        `evaluation` says that they are evaluation examples.
        """
        ...

    def example(
        self, tokenizer: PreTrainedTokenizerBase, text: str, length: int, label: int = 0
    ) -> dict[str, Any]:
        """Return the features of an artificial example: this text, padded or cut to exactly `length` tokens.

        If examples have one class each, it is `label`.
        """
        ...

    def collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the function that makes a batch of training examples; None for the Trainer's own."""
        ...

    def evaluation_collator(self, tokenizer: PreTrainedTokenizerBase, model: Any) -> Any:
        """Return the function that makes a batch of evaluation examples; None for the Trainer's own."""
        ...

    def guess_loss(self, train_labels: Array) -> float:
        """Return the mean training loss of a model that ignores the text and knows the labels' distribution."""
        ...

    def answer(
        self,
        outputs: Array,
        references: Array,
        train_labels: Array,
        labels: Sequence[str] = (),
    ) -> tuple[Score, ...]:
        """Return the scores of the reduced outputs on the evaluation examples, without those that are not defined.

        `references` and `train_labels` have one number per example; or one row per example with a number per
        token, `IGNORED` where there is none. `labels` are the names of the classes. Must not raise for outputs that
        are not finite, since a training may diverge.
        """
        ...


@runtime_checkable
class ReadsLabels(Protocol):
    """A task whose data has a column of labels, `label` in its columns."""

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
