"""Metrics: what the Trainer computes of an evaluation's outputs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from transformers import EvalPrediction

if TYPE_CHECKING:
    from ftbench.worker.recipe.accuracy import Accuracy


class ComputeAccuracy:
    """The Trainer's `compute_metrics`: logits to labels, labels to accuracy."""

    @cached_property
    def _metric(self) -> Accuracy:
        # `evaluate` takes half a second to load, and a trace computes no metric. Cells load it first.
        from ftbench.worker.recipe.accuracy import Accuracy

        # In memory: two cells at once must not meet in a cache file.
        return Accuracy(keep_in_memory=True)

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return {"accuracy": share} of a prediction; the highest logit is the predicted label."""
        logits = prediction.predictions
        if isinstance(logits, tuple):  # some models return hidden states beside the logits
            logits = logits[0]
        labels = np.argmax(logits, axis=-1)
        result = self._metric.compute(predictions=labels, references=prediction.label_ids)
        assert result is not None  # None only in a process that isn't the main one
        return dict(result)
