"""Accuracy through `evaluate`, with no hub: a small Metric of our own.

`evaluate.load("accuracy")` downloads the metric's code, which neither works offline nor should be
trusted to; this class is the same computation in the same framework.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np
from transformers import EvalPrediction


class Accuracy(evaluate.Metric):
    """Share of predictions equal to their reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions equal to their reference.",
            citation="",
            inputs_description="predictions and references, one integer label a document",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class ComputeAccuracy:
    """The Trainer's `compute_metrics`: logits to labels, labels to accuracy."""

    def __init__(self) -> None:
        # In memory: two cells at once must not meet in a cache file.
        self._metric = Accuracy(keep_in_memory=True)

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return {"accuracy": share} of a prediction; the highest logit is the predicted label."""
        logits = prediction.predictions
        if isinstance(logits, tuple):  # some models return hidden states beside the logits
            logits = logits[0]
        labels = np.argmax(logits, axis=-1)
        result = self._metric.compute(predictions=labels, references=prediction.label_ids)
        assert result is not None  # None only in a process that isn't the main one
        return dict(result)
