"""Tensors with data, which must not meet those of a trace."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.leftovers import hanging_from

# Constants come with data.
_LIFTS = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift.default)


def refuse_data(func: Any, arguments: tuple[Any, ...]) -> None:
    """Raise PredictionError if an operator gets a tensor that was made outside the trace."""
    if func in _LIFTS:
        return
    for argument in arguments:  # an operator's arguments are tensors, or lists of them
        for leaf in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                raise _refusal(func, leaf)


def _refusal(func: Any, tensor: torch.Tensor) -> PredictionError:
    """Return the error for a tensor with data; it says in which cache or module the tensor is kept."""
    gc.unfreeze()  # the search looks at objects that are older than the trace, too
    kept = hanging_from(tensor)
    hint = "build model, optimizer and batch in the factory, on the device it is given"
    if kept:
        hint = f"it is kept in {kept}: clear that before the steps are traced, or build it in the factory"
    return PredictionError(
        "a tensor with data was used in a trace",
        where=str(func),
        got=f"{type(tensor).__name__} of {tuple(tensor.shape)}, {tensor.dtype}, on {tensor.device}",
        expected="tensors that are made in the trace",
        hint=hint,
    )
