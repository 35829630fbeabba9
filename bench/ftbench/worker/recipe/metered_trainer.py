"""The Trainer with measurements: the beginning and end of each step, and the current phase.

Its computation is unchanged: each override calls the original. `on_step_begin` is called only after the batch
was fetched, so a step begins at the call of `get_batch_samples`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftbench.records.checkpoint import Checkpoint
from ftbench.records.readings import FIRST_STEPS
from ftbench.records.scores import Score
from ftbench.worker.measure.collectives import time_every_step
from ftbench.worker.measure.meters.clock import CudaClock, HostClock
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.metrics import ComputeScores


class MeteredTrainer(Trainer):
    """`transformers.Trainer` that records its steps and phases, and how its model was loaded."""

    checkpoint: Checkpoint | None = None
    attention: str | None = None
    ddp: DistributedDataParallel | None = None  # the wrapped model, if there are several processes

    def __init__(
        self,
        *,
        phases: PhaseBook,
        steps: StepBook,
        callbacks: Sequence[TrainerCallback] = (),
        evaluation_collator: Any = None,
        **kwargs: Any,
    ) -> None:
        self.phases = phases
        self.steps = steps
        # The collator of evaluation batches, if it is another than that of training batches.
        self.evaluation_collator = evaluation_collator
        # First, so that the time of other callbacks is not part of a step.
        super().__init__(callbacks=[_StepRecorder(phases, steps), *callbacks], **kwargs)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the model's parameters."""
        assert self.model is not None
        return list(self.model.parameters())

    def scores(self) -> tuple[Score, ...]:
        """Return the scores of the last evaluation."""
        return (
            self.compute_metrics.scores if isinstance(self.compute_metrics, ComputeScores) else ()
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Fetch the batches of one optimizer step: the step begins here."""
        self.steps.begin(self.state.epoch or 0.0)
        result = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.steps.fetched(result[0])
        return result

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loader of the evaluation examples, which are never packed."""
        of_training = self.data_collator
        self.data_collator = self.evaluation_collator or of_training
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.data_collator = of_training

    def training_step(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run forward and backward of one micro-batch, and record its loss."""
        if self.ddp is None and isinstance(model, DistributedDataParallel):
            self.ddp = model
            time_every_step(model)
        loss = super().training_step(model, *args, **kwargs)
        self.steps.loss(loss)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, in a phase of its own."""
        with self.phases.phase("evaluation"):
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.phases.phase("save"):
            super()._save_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        with self.phases.phase("save"):
            super()._load_best_model()


class _StepRecorder(TrainerCallback):
    """Enters the phases of the first and of the later steps, and ends each step."""

    def __init__(self, phases: PhaseBook, steps: StepBook) -> None:
        self._phases = phases
        self._steps = steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        clock = CudaClock() if args.device.type == "cuda" else HostClock()
        self._steps.start(clock, args.device, state.max_steps)
        self._phases.enter("first_steps")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._steps.end()
        if state.global_step == FIRST_STEPS:
            self._phases.enter("train")
