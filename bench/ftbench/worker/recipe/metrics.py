"""Metrics: the Trainer's `compute_metrics`, which scores the outputs of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from ftbench.records.scores import Score
from ftbench.worker.tasks.protocol import Array, Task


class ComputeScores:
    """The Trainer's `compute_metrics`: a task's scores of the outputs; `scores` are those of the last evaluation.

    `reduced` says that the outputs are those of the task's `reduce_logits`, else they are logits.
    With `batch_eval_metrics`, the Trainer passes one batch at a time, and requests the scores with the last.
    """

    def __init__(
        self, task: Task, train_labels: Array, labels: Sequence[str] = (), *, reduced: bool = True
    ) -> None:
        self.scores: tuple[Score, ...] = ()
        self._task = task
        self._train_labels = train_labels
        self._labels = labels
        self._reduced = reduced
        self._outputs: list[Array] = []
        self._references: list[Array] = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Return the value of each score by its name; 0 if it is not defined, so that it can rank models."""
        outputs: Any = prediction.predictions
        if isinstance(outputs, tuple):  # some models return hidden states beside the logits
            outputs = outputs[0]
        # With `eval_do_concat_batches = false`, the Trainer gives a list of batches.
        apart = isinstance(outputs, list)
        for batch in (
            zip(outputs, prediction.label_ids, strict=True)
            if apart
            else [(outputs, prediction.label_ids)]
        ):
            self._add(*map(_on_host, batch))
        if not compute_result:
            return {}
        outputs, references = map(np.concatenate, (self._outputs, self._references))
        self._outputs, self._references = [], []
        self.scores = self._task.answer(outputs, references, self._train_labels, self._labels)
        return dict.fromkeys(self._task.scores, 0.0) | {
            score.name: score.value for score in self.scores
        }

    def _add(self, outputs: Array, references: Array) -> None:
        if not self._reduced and self._task.reduce_logits is not None:
            kept = (torch.from_numpy(values) for values in (outputs, references))
            outputs = self._task.reduce_logits(*kept).numpy()
        self._outputs.append(outputs)
        self._references.append(references)


def _on_host(values: Any) -> Array:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
