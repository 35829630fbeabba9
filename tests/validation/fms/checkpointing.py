"""Checkpointing as transformers 4 did it with FSDP1, while a trace lasts: around a unit, not inside of it.

Models called `_gradient_checkpointing_func(decoder_layer.__call__, ...)` (transformers 4.44 to 4.48,
`modeling_*.py`), and with FSDP1 the layer was the unit that wraps it. So the backward pass gathers a unit's
parameters to compute it again, gives them back, and gathers them a second time. And since the first forward pass
is without gradients, no unit expects a backward pass before it was computed again: none is prefetched, although
BACKWARD_PRE asks for it. Layers of transformers 5 checkpoint their own forward pass, inside of the unit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.distributed.fsdp import FullyShardedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from ftbench.prediction.trace import patches


@contextlib.contextmanager
def checkpointed_around_units() -> Iterator[None]:
    """Let the layers that FSDP1 wraps be checkpointed together with their unit."""
    with patches.replaced(FullyShardedDataParallel, "forward", _around):
        yield


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, *args: Any, **named: Any) -> Any:
        layer = self.module
        if not (isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing):
            return original(self, *args, **named)
        checkpoint = layer._gradient_checkpointing_func

        def unit(*inputs: Any) -> Any:
            layer._gradient_checkpointing_func = _directly
            try:
                return original(self, *inputs, **named)
            finally:
                layer._gradient_checkpointing_func = checkpoint

        return checkpoint(unit, *args)

    return forward


def _directly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
