"""Classification: one class of two or more for each text, or for each pair of texts."""

from __future__ import annotations

from collections import Counter
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
from ftbench.worker.tasks import scoring, strata
from ftbench.worker.tasks.protocol import LABEL, Array, Labels
from ftbench.worker.tasks.text import WholeTexts

if TYPE_CHECKING:
    from ftbench.worker.tasks.accuracy import Accuracy

# A column with more values than this, and than half the rows, does not hold classes.
_FEW = 10


class TextClassification(WholeTexts):
    """Classification: the answer is the position of the largest of the model's outputs."""

    name: TaskName = "text-classification"
    auto_model: Any = AutoModelForSequenceClassification
    peft_task: str | None = "SEQ_CLS"
    scores: tuple[str, ...] = ("accuracy", "f1_macro")
    has_classes: bool = True

    @cached_property
    def _accuracy(self) -> Accuracy:
        # `evaluate` takes half a second to import, and a trace computes no metric. Cells import it early.
        from ftbench.worker.tasks.accuracy import Accuracy

        # In memory, so that two cells at a time do not share a cache file.
        return Accuracy(keep_in_memory=True)

    def strata(self, examples: pa.Table) -> list[Array]:
        """Return the row numbers of each class, in the order of the rows."""
        return strata.of_values(examples[LABEL])

    def read_labels(
        self,
        train: pa.ChunkedArray,
        evaluation: pa.ChunkedArray,
        *,
        names: Sequence[str] | None,
        column: str,
    ) -> Labels:
        """Return each label as the index of its value among those of training, or among the names."""
        where = f"workload.label_column {column}"
        found = sorted(pc.unique(train).to_pylist())
        if len(found) < 2:
            raise WorkloadError(
                "the data has only one class: there is nothing to learn",
                where=where,
                got=repr(found),
            )
        if names is None and len(found) > max(_FEW, len(train) / 2):
            raise _not_classes(found, len(train), where)
        values = list(range(len(names))) if names else found
        train_numbers, unknown = _numbered(train, values)
        if unknown:
            raise WorkloadError(
                "the training pool has labels that have no name among the data set's classes",
                where=where,
                got=unknown,
                expected=f"0 to {len(values) - 1}: {', '.join((names or ())[:10])}",
                hint="rows without an agreed label are often labelled -1: drop_rows_without_label = true",
            )
        evaluation_numbers, unknown = _numbered(evaluation, values)
        if unknown:
            raise WorkloadError(
                "the evaluation pool has labels that the training pool does not have",
                where=where,
                got=unknown,
                hint="test splits on the hub often hide their labels as -1: name another split in eval_split",
            )
        return Labels(
            train=train_numbers,
            evaluation=evaluation_numbers,
            names=tuple(names or map(str, values)),
        )

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the fields for one class of several, and their names; a checkpoint may be of another problem."""
        return {
            "problem_type": "single_label_classification",
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {name: i for i, name in enumerate(labels)},
        }

    def guess_loss(self, train_labels: Array) -> float:
        """Return the entropy of the classes, in nats."""
        shares = np.unique(train_labels, return_counts=True)[1] / len(train_labels)
        return float(-(shares * np.log(shares)).sum())

    def answer(
        self,
        outputs: Array,
        references: Array,
        train_labels: Array,
        labels: Sequence[str] = (),
    ) -> tuple[Score, ...]:
        """Return accuracy and macro F1; the guess is the most frequent class of training, for all examples.

        Outputs that are not finite have no largest one: they are no answers.
        """
        if not np.isfinite(outputs).all():
            return ()
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


def _not_classes(found: Sequence[Any], rows: int, where: str) -> WorkloadError:
    """Return the error for a column that has about as many values as rows."""
    numbers = all(isinstance(value, int | float) for value in found)
    fractional = numbers and any(value != int(value) for value in found)
    kind = ", fractional numbers" if fractional else ", numbers" if numbers else ""
    return WorkloadError(
        f"{len(found):,} different labels in {rows:,} training examples{kind}: these are not classes",
        where=where,
        got=", ".join(map(repr, found[:5])) + ", ...",
        expected="a column with several examples of each class",
        hint='task = "text-regression" learns numbers' if numbers else None,
    )


def _numbered(labels: pa.ChunkedArray, values: Sequence[Any]) -> tuple[pa.Array, str]:
    """Return the place of each label among values, and the labels that are not among them, with their counts."""
    number = {value: i for i, value in enumerate(values)}
    found = labels.to_pylist()
    unknown = Counter(value for value in found if value not in number)
    words = [f"{value} ({count:,} rows)" for value, count in unknown.most_common(5)]
    more = [f"and {len(unknown) - 5:,} more"] if len(unknown) > 5 else []
    return pa.array([number.get(value) for value in found], pa.int64()), ", ".join(words + more)
