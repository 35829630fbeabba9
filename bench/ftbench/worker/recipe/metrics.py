"""Metrics: the Trainer's `compute_metrics`, which scores the outputs of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import EvalPrediction

from ftbench.records.scores import Score
from ftbench.worker.tasks.protocol import Array, Task


class ComputeScores:
    """The Trainer's `compute_metrics`: a task's scores of the outputs; `scores` are those of the last evaluation.

    With `batch_eval_metrics`, the Trainer passes one batch at a time, and requests the scores with the last.
    """

    def __init__(self, task: Task, train_labels: Array, labels: Sequence[str] = ()) -> None:
        self.scores: tuple[Score, ...] = ()
        self._task = task
        self._train_labels = train_labels
        self._labels = labels
        self._outputs: list[Array] = []
        self._references: list[Array] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Return the value of each score by its name; 0 if it is not defined, so that it can rank models."""
        outputs: Any = prediction.predictions
        if isinstance(outputs, tuple):  # some models return hidden states beside the logits
            outputs = outputs[0]
        self._outputs.append(_on_host(outputs))
        self._references.append(_on_host(prediction.label_ids))
        if not compute_result:
            return {}
        outputs, references = map(np.concatenate, (self._outputs, self._references))
        self._outputs, self._references = [], []
        self.scores = self._task.answer(outputs, references, self._train_labels, self._labels)
        return dict.fromkeys(self._task.scores, 0.0) | {
            score.name: score.value for score in self.scores
        }


def _on_host(values: Any) -> Array:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
