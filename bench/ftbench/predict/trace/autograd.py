"""Autograd under a dispatch mode: whether it runs, and which of its sums it would make in place."""

from __future__ import annotations

from typing import Any

import torch

from ftbench.base.errors import PredictionError
from ftbench.predict.trace import patches


def in_backward() -> bool:
    """Return whether autograd is running: the current operator is of its thread on a card."""
    return torch._C._current_graph_task_id() != -1


class GradientSums:
    """Tells the sums of two gradients that autograd makes in place.

    torch/csrc/autograd/input_buffer.cpp adds into the first where it is dense, nobody else holds
    it or its storage, and it is no tensor subclass. Under a dispatch mode every tensor looks
    like one, and the sum comes out of place.
    """

    def __init__(self) -> None:
        self._sole: tuple[int, int] | None = None

    def calibrate(self) -> None:
        """Learn how many references a gradient has here that nobody but autograd holds.

        Python's own are among them, and how many those are is the version's affair. Call it where
        each sum of tensors is passed to `in_place`.
        """
        self._sole = None
        leaf = torch.ones(1, requires_grad=True)
        twice = leaf * 2
        (twice * 3 + twice * 5).sum().backward()  # two fresh gradients of `twice`, added up
        if self._sole is None:
            raise PredictionError("autograd's sum of two gradients was not seen", where="torch")

    def in_place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether this sum is autograd's own, of two gradients, and would be made in place."""
        if kwargs or not in_backward() or torch.is_grad_enabled():
            return False
        one, other = args
        if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
            return False
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if self._sole is None:
            self._sole = _references(one)
        return _references(one) == self._sole and _dense(one)


def _dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor fills its memory with no gap and no overlap, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _references(tensor: torch.Tensor) -> tuple[int, int]:
    """Return how many references there are to a tensor's storage, and to the tensor."""
    count = patches.require(torch._C, "_storage_Use_Count")
    return count(tensor.untyped_storage()._cdata), patches.require(tensor, "_use_count")()
