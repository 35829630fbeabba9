"""Kernels: which operators of a trace may ask for a workspace that no dispatch mode sees.

Only what decides the workspace is kept; how large it is on a card is said in `workspaces`.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.predict.events import Kernel

aten = torch.ops.aten

MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
EMBEDDING_BACKWARD = "aten::embedding_dense_backward"

_PRODUCTS = {
    aten.mm.default: "aten::mm",
    aten.addmm.default: "aten::addmm",
    aten.bmm.default: "aten::bmm",
    aten.baddbmm.default: "aten::baddbmm",
}


def kernel_of(
    func: Any, args: tuple[Any, ...], device: torch.device, *, autograd: bool
) -> Kernel | None:
    """Return what an operator that just ran may want a workspace for; None where it wants none."""
    name = _PRODUCTS.get(func)
    if name is not None and args[0].fake_device == device:
        return _product(name, args, autograd=autograd)
    if func is aten.embedding_dense_backward.default and args[0].fake_device == device:
        grad, indices = args[0], args[1]
        sizes = (indices.numel(), grad.shape[-1])
        traits = (grad.element_size(), indices.element_size())
        return Kernel(EMBEDDING_BACKWARD, sizes, traits, autograd)
    return None


def _product(name: str, args: tuple[Any, ...], *, autograd: bool) -> Kernel:
    """Return a matrix product: sizes (rows, inner, columns), whether its bias is a vector, element size."""
    left, right = args[-2:] if name in ("aten::mm", "aten::bmm") else args[1:3]
    sizes = (left.shape[-2], left.shape[-1], right.shape[-1])
    vector_bias = int(name == "aten::addmm" and args[0].dim() == 1)
    return Kernel(name, sizes, (vector_bias, left.element_size()), autograd)
