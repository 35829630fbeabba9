"""Autograd under a dispatch mode: whether it is running, and which sums of gradients it makes in place."""

from __future__ import annotations

from typing import Any

import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace import patches


def in_backward() -> bool:
    """Return whether autograd is running; on a card, the current operator would run in its thread."""
    return torch._C._current_graph_task_id() != -1


class GradientSums:
    """Recognises the sums of two gradients that autograd makes in place.

    torch/csrc/autograd/input_buffer.cpp adds into the first gradient if it is dense, if nobody else refers
    to it or its storage, and if it is not a tensor subclass. Under a dispatch mode every tensor looks like a
    subclass, and the sum is not made in place.
    """

    def __init__(self) -> None:
        self._sole: tuple[int, int] | None = None

    def calibrate(self) -> None:
        """Find the number of references to a gradient to which only autograd refers.

        It includes Python's own references, whose number depends on the version of torch. Call this while
        every sum of tensors is passed to `in_place`.
        """
        self._sole = None
        leaf = torch.ones(1, requires_grad=True)
        twice = leaf * 2
        (twice * 3 + twice * 5).sum().backward()  # two fresh gradients of `twice`, added up
        if self._sole is None:
            raise PredictionError("autograd's sum of two gradients was not observed", where="torch")

    def in_place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether this is autograd's own sum of two gradients, and would be made in place."""
        if kwargs or not in_backward() or torch.is_grad_enabled():
            return False
        first, second = args
        if not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)):
            return False
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        if self._sole is None:
            self._sole = _references(first)
        return _references(first) == self._sole and _dense(first)


def _dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor fills its memory without gap or overlap, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _references(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the number of references to a tensor's storage, and to the tensor."""
    count = patches.require(torch._C, "_storage_Use_Count")
    return count(tensor.untyped_storage()._cdata), patches.require(tensor, "_use_count")()
