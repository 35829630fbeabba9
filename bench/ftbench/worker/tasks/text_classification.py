"""Classification: one class of two or more for each text, or for each pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import AutoModelForSequenceClassification

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import TaskName
from ftbench.records.scores import Score
from ftbench.worker.tasks import scoring
from ftbench.worker.tasks.protocol import Array, Labels
from ftbench.worker.tasks.text import WholeTexts

if TYPE_CHECKING:
    from ftbench.worker.tasks.accuracy import Accuracy


class TextClassification(WholeTexts):
    """Classification: the answer is the position of the largest of the model's outputs."""

    name: TaskName = "text-classification"
    auto_model: Any = AutoModelForSequenceClassification
    peft_task: str = "SEQ_CLS"
    scores: tuple[str, ...] = ("accuracy", "f1_macro")
    filler: int | float = 0

    @cached_property
    def _accuracy(self) -> Accuracy:
        # `evaluate` takes half a second to import, and a trace computes no metric. Cells import it early.
        from ftbench.worker.tasks.accuracy import Accuracy

        # In memory, so that two cells at a time do not share a cache file.
        return Accuracy(keep_in_memory=True)

    def strata(self, labels: pa.ChunkedArray) -> list[Array]:
        """Return the row numbers of each class, in the order of the rows."""
        values = np.asarray(labels.to_pylist())
        return [np.flatnonzero(values == value) for value in np.unique(values)]

    def read_labels(
        self,
        train: pa.ChunkedArray,
        evaluation: pa.ChunkedArray,
        *,
        names: Sequence[str] | None,
        column: str,
    ) -> Labels:
        """Return each label as the index of its value among those of training, or among the names."""
        found = sorted(pc.unique(train).to_pylist())
        if len(found) < 2:
            raise WorkloadError(
                "the data has only one class: there is nothing to learn",
                where=f"workload.label_column {column}",
                got=repr(found),
            )
        values = list(range(len(names))) if names else found
        return Labels(
            train=_numbered(train, values, column),
            evaluation=_numbered(evaluation, values, column),
            names=tuple(names or map(str, values)),
        )

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the number of classes and their names."""
        return {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {name: i for i, name in enumerate(labels)},
        }

    def answer(self, outputs: Array, references: Array, train_labels: Array) -> tuple[Score, ...]:
        """Return accuracy and macro F1; the guess is the most frequent class of training, for all examples."""
        answers = np.argmax(outputs, axis=-1)
        found = self._accuracy.compute(predictions=answers, references=references)
        assert found is not None  # None only in a process that isn't the main one
        guess = int(np.bincount(train_labels).argmax())
        guessed = float(np.mean(references == guess))
        share = float(found["accuracy"])
        return (
            scoring.accuracy(share, len(references), guessed),
            scoring.macro_f1(references, answers, guess),
        )


def _numbered(labels: pa.ChunkedArray, values: Sequence[Any], column: str) -> pa.Array:
    number = {value: i for i, value in enumerate(values)}
    found = labels.to_pylist()
    unknown = sorted({str(value) for value in found if value not in number})
    if unknown:
        raise WorkloadError(
            "the evaluation pool has labels that the training pool does not have",
            where=f"workload.label_column {column}",
            got=", ".join(unknown),
            hint="test splits on the hub often hide their labels as -1: name another split in eval_split",
        )
    return pa.array([number[value] for value in found], pa.int64())
