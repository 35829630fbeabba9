"""What the first step leaves, made before it, so that one traced step has all that later ones have.

That is the optimizer's state, and the workspace of cuBLAS of the thread that runs the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

from ftbench.prediction.trace import patches


@contextlib.contextmanager
def states_made_before() -> Iterator[None]:
    """Let the Trainer's optimizer take a step on gradients of zero before the first training step.

    It is for adapters, all of which get gradients: of a whole model's weights, some may never get one.
    """
    with patches.replaced(transformers.Trainer, "training_step", _prepared):
        yield


def _prepared(original: Callable[..., Any]) -> Callable[..., Any]:
    def training_step(self: Any, *args: Any, **named: Any) -> Any:
        optimizer = self.optimizer.optimizer  # Accelerate's own step waits for the last micro-batch
        if not optimizer.state:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
            matrix = torch.zeros(1, 1, device=parameter.device, requires_grad=True)
            (matrix @ matrix).backward()
            optimizer.step()
            optimizer.zero_grad()
        return original(self, *args, **named)

    return training_step
