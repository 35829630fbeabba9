"""The time of optimizer steps of a model on this device: a warm-up and a few steps at each length.

A step here is what the Trainer does with a batch: forward and backward pass, AdamW, gradients set to None. It is
timed on the artificial examples that FLOPs are counted on.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftbench.records.first_look import StepTime, TextsRequest
from ftbench.records.messages import Progress
from ftbench.worker.measure.device import measure_matmul, synchronizer
from ftbench.worker.process.failures import status_of
from ftbench.worker.recipe.model import load_model
from ftbench.worker.tasks.tasks import task_of

# Timed steps of a length, after one that warms up.
_STEPS = 3
# FLOPs per parameter and token of both passes (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
_FLOPS = 6
# A step reaches half of the matrix peak at the most, so this says too little rather than too much.
_MOST_SHARE = 0.5
# Attention grows with the square of the length: twice the length takes at most so many times as long.
_TWICE = 3.0


@dataclasses.dataclass(frozen=True)
class Timed:
    """The times of a model's steps, shortest length first; its parameters, and the seconds that loading it took."""

    times: tuple[StepTime, ...]
    parameters: int
    load_s: float


def time_steps(
    request: TextsRequest,
    lengths: Sequence[int],
    labels: tuple[str, ...],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    emit: Callable[[Progress], None],
) -> Timed:
    """Return the times of steps at these lengths, as many as fit into the request's seconds.

    A length whose steps would take too long by the device's matrix peak, or by the length before, is not begun, nor
    are longer ones; and one for which memory does not suffice has no time. Raises
    WorkloadError if the model cannot be loaded.
    """
    emit(Progress(phase="loading the model"))
    began = time.perf_counter()
    model = load_model(
        request.model,
        labels,
        task_of(request.data),
        attn_implementation="sdpa",
        pad_token_id=tokenizer.pad_token_id,
    ).model
    model.to(device)  # type: ignore[arg-type]  # transformers wraps the method in another's type
    load_s = time.perf_counter() - began
    parameters = model.num_parameters()
    peak = _MOST_SHARE * measure_matmul(device, "float32")
    expected = _FLOPS * parameters * request.batch * min(lengths) / peak
    left, times = request.seconds, []
    steps = _Steps(model, request, tokenizer, device)
    for length in sorted(lengths):
        if expected * (_STEPS + 1) > left:
            break
        emit(Progress(phase=f"timing steps at length {length}"))
        started = time.perf_counter()
        try:
            times.append(steps.at(length))
        except (RuntimeError, MemoryError) as error:
            if status_of(error) != "oom":
                raise
            break  # nor would a longer one have room
        left -= time.perf_counter() - started
        expected = times[-1].step_s * _TWICE
    return Timed(tuple(times), parameters, load_s)


class _Steps:
    """Steps of one model with its optimizer."""

    def __init__(
        self,
        model: PreTrainedModel,
        request: TextsRequest,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
    ) -> None:
        self._model = model
        self._task = task_of(request.data)
        self._batch = request.batch
        self._tokenizer = tokenizer
        self._device = device
        self._synchronize = synchronizer(device)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def at(self, length: int) -> StepTime:
        """Return the medians at a length, after one step that is not counted."""
        inputs = self._inputs(length)
        self._model.train()
        self._timed(lambda: self._step(inputs))
        steps = [self._timed(lambda: self._step(inputs)) for _ in range(_STEPS)]
        self._model.eval()
        forward = self._timed(lambda: self._forward(inputs))
        return StepTime(max_length=length, step_s=statistics.median(steps), forward_s=forward)

    def _inputs(self, length: int) -> dict[str, Any]:
        example = self._task.example(self._tokenizer, "a " * length, length)
        return {
            name: torch.tensor([value] * self._batch, device=self._device)
            for name, value in example.items()
        }

    def _step(self, inputs: dict[str, Any]) -> None:
        self._model(**inputs).loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _forward(self, inputs: dict[str, Any]) -> None:
        with torch.no_grad():
            self._model(**inputs)

    def _timed(self, act: Callable[[], None]) -> float:
        self._synchronize()
        began = time.perf_counter()
        act()
        self._synchronize()
        return time.perf_counter() - began
