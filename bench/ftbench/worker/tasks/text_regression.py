"""Regression: one number for each text, or for each pair of texts (similarity, stars, readability)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import AutoModelForSequenceClassification

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import TaskName
from ftbench.records.scores import Score
from ftbench.worker.tasks import scoring
from ftbench.worker.tasks.protocol import LABEL, Array, Labels
from ftbench.worker.tasks.text import WholeTexts

# Examples are split within this many groups of similar labels, if each has at least as many examples.
_GROUPS = 10


class TextRegression(WholeTexts):
    """A model with one output, trained on the mean squared error (transformers' `problem_type`)."""

    name: TaskName = "text-regression"
    auto_model: Any = AutoModelForSequenceClassification
    peft_task: str | None = "SEQ_CLS"
    scores: tuple[str, ...] = ("pearson", "spearman", "mse")
    has_classes: bool = False

    def filler(self, label: int) -> float:
        """Return a label for an artificial example: any number."""
        return float(label)

    def strata(self, examples: pa.Table) -> list[Array]:
        """Return row numbers in groups of similar labels, each in the order of the rows.

        A file may be sorted by its labels, and its last part would not be a fair evaluation.
        """
        order = np.argsort(_numbers(examples[LABEL], ""), kind="stable")
        groups = max(1, min(_GROUPS, len(order) // _GROUPS))
        return [np.sort(rows) for rows in np.array_split(order, groups)]

    def read_labels(
        self,
        train: pa.ChunkedArray,
        evaluation: pa.ChunkedArray,
        *,
        names: Sequence[str] | None,
        column: str,
    ) -> Labels:
        """Return the labels as single-precision numbers, as the loss requires."""
        pools = {"training": _numbers(train, column), "evaluation": _numbers(evaluation, column)}
        for pool, numbers in pools.items():
            if len(numbers) and float(np.ptp(numbers)) == 0:
                raise WorkloadError(
                    f"all labels of the {pool} pool are the same number: there is nothing to learn or to score",
                    where=f"workload.label_column {column}",
                    got=f"{numbers[0]:g}",
                    hint="test splits on the hub often hide their labels as -1: name another in eval_split",
                )
        return Labels(*(pa.array(numbers, pa.float32()) for numbers in pools.values()))

    def config_fields(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the fields for one output and the mean squared error."""
        return {"num_labels": 1, "problem_type": "regression"}

    def guess_loss(self, train_labels: Array) -> float:
        """Return the variance of the labels: the mean squared error of their mean."""
        return float(np.var(np.asarray(train_labels, dtype=float)))

    def answer(
        self,
        outputs: Array,
        references: Array,
        train_labels: Array,
        labels: Sequence[str] = (),
    ) -> tuple[Score, ...]:
        """Return Pearson's and Spearman's correlation and the mean squared error.

        The guess is the mean of the training labels, for all examples; its correlation is taken as 0.
        """
        answers = np.asarray(outputs, dtype=float).reshape(len(references))
        wanted = np.asarray(references, dtype=float)
        if not np.isfinite(answers).all():
            return ()
        guess = float(np.mean(train_labels, dtype=float))
        found = (
            scoring.pearson(wanted, answers),
            scoring.spearman(wanted, answers),
            scoring.mean_squared_error(wanted, answers, guess),
        )
        return tuple(score for score in found if score is not None)


def _numbers(labels: pa.ChunkedArray, column: str) -> Array:
    """Return labels as numbers; raises WorkloadError if they are not numbers, or not finite."""
    kind = labels.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not numeric:
        text = next(filter(_no_number, labels.unique().to_pylist()), None)
        raise WorkloadError(
            "a regression needs labels that are numbers",
            where=f"workload.label_column {column}",
            got=str(kind) if text is None else repr(text),
            hint='task = "text-classification" takes classes',
        )
    numbers = labels.cast(pa.float64()).to_numpy()
    if not np.isfinite(numbers).all():
        raise WorkloadError(
            f"{int((~np.isfinite(numbers)).sum())} labels are not finite numbers",
            where=f"workload.label_column {column}",
        )
    return numbers


def _no_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return True
    return False
