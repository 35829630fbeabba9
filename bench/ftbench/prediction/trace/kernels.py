"""Kernels: the operators that may allocate a workspace which no dispatch mode sees.

Only the values that decide the workspace are kept; `ftbench.prediction.simulate.workspaces` has its size on a card.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ftbench.prediction.trace.events import Kernel
from ftbench.prediction.trace.flash_attention import flash_attention, flash_attention_backward

aten = torch.ops.aten

# Sizes (they may vary with batch and length) and traits (they may not) of one call.
Description = tuple[tuple[int, ...], tuple[int, ...]]


def kernel_of(func: Any, args: tuple[Any, ...], *, autograd: bool) -> Kernel | None:
    """Return the kernel of an operator that just ran, if it may need a workspace, else None."""
    describe = _DESCRIBED.get(func) or _DESCRIBED_BY_NAME.get(func._schema.name)
    if describe is None:
        return None
    found = describe(*args)
    return None if found is None else Kernel(str(func._schema.name), *found, autograd)


def _product(left: torch.Tensor, right: torch.Tensor) -> Description:
    """Return a product of matrices: rows, inner, columns; no vector as bias.

    If either matrix is copied, the elements of both copies come after.
    """
    sizes = (left.shape[-2], left.shape[-1], right.shape[-1])
    copies = tuple(_copied_elements(matrix) for matrix in (left, right))
    return (*sizes, *copies) if any(copies) else sizes, (0, left.element_size())


def _copied_elements(matrix: torch.Tensor) -> int:
    """Return the elements of the copy that a product makes of a matrix; 0 if cuBLAS reads it as it is.

    native/cuda/Blas.cpp, prepare_matrix_for_cublas and, for batches, prepare_batch_matrix_for_cublas: one of the
    last two strides is 1 and the other skips a whole row or column. The gradient of a sum has strides of 0.
    """
    (rows, columns), (down, across) = matrix.shape[-2:], matrix.stride()[-2:]
    read = (down == 1 and across >= max(1, rows)) or (across == 1 and down >= max(1, columns))
    if matrix.dim() == 2:
        read = read or matrix.is_contiguous() or matrix.t().is_contiguous()
    else:
        read = read or (matrix.is_contiguous() and down != 0 and across != 0)
    return 0 if read else matrix.numel()


def _sum_and_product(bias: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> Description:
    """Return a product of matrices plus a bias; the first trait says whether the bias is a vector."""
    sizes, (_, element_bytes) = _product(left, right)
    return sizes, (int(bias.dim() == 1), element_bytes)


def _embedding_backward(
    grad: torch.Tensor, indices: torch.Tensor, rows: int, *_: Any
) -> Description:
    """Return an embedding's gradient: tokens, width, vocabulary."""
    sizes = (indices.numel(), grad.shape[-1], rows)
    return sizes, (grad.element_size(), indices.element_size())


def _column_sum(matrix: torch.Tensor, dims: Any = None, *_: Any) -> Description | None:
    """Return a sum over the leading dimensions of a contiguous tensor: rows, columns."""
    kept = matrix.dim() - len(dims or ())
    leading = sorted(dim % matrix.dim() for dim in dims or ()) == list(range(len(dims or ())))
    if not (leading and 0 < kept < matrix.dim() and matrix.is_contiguous()):
        return None
    columns = math.prod(matrix.shape[-kept:])
    return (math.prod(matrix.shape[:-kept]), columns), (matrix.element_size(),)


def _layer_norm_backward(
    grad: torch.Tensor,
    rows: torch.Tensor,
    normalized: Any,
    *_: Any,
) -> Description:
    """Return a layer norm's gradient: rows, width."""
    width = math.prod(normalized)
    return (rows.numel() // width, width), (rows.element_size(),)


def _norms(tensors: Any, *_: Any) -> Description | None:
    """Return the norms of a list of tensors; traits are their number and the elements of the largest."""
    if not tensors:
        return None
    return (), (len(tensors), max(tensor.numel() for tensor in tensors))


def _attention_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, *_: Any
) -> Description:
    """Return fused attention's gradient: batch, heads, queries, keys, head size, heads of the keys."""
    batch, heads, queries, width = query.shape
    return (batch, heads, queries, key.shape[2], width, key.shape[1]), (query.element_size(),)


def _package_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sequences: int, dropout: float
) -> Description | None:
    """Return a call of flash-attn that may split keys: batch, heads, queries, keys, head size."""
    if sequences or dropout:
        return None
    batch, queries, heads, width = query.shape
    return (batch, heads, queries, key.shape[1], width), ()


def _package_backward(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, *rest: Any
) -> Description:
    """Return a gradient of flash-attn: sequences, heads, queries, keys, head size, heads of the keys.

    The second trait says whether lengths vary; then queries and keys are those of all sequences together.
    """
    *_, sequences = rest
    batch = sequences or query.shape[0]
    sizes = (batch, query.shape[-2], query.shape[-3], key.shape[-3], query.shape[-1], key.shape[-2])
    return sizes, (query.element_size(), int(bool(sequences)))


def _four_bit_product(
    inputs: torch.Tensor, packed: torch.Tensor, shape: Any, *_: Any
) -> Description:
    """Return a product with a weight of 4 bits: rows, outputs, inner."""
    outputs, inner = shape
    return (inputs.numel() // inner, outputs, inner), (inputs.element_size(),)


# Operators of a package that may not be installed.
_DESCRIBED_BY_NAME: dict[str, Callable[..., Description | None]] = {
    "bitsandbytes::gemm_4bit": _four_bit_product,
}
_DESCRIBED: dict[Any, Callable[..., Description | None]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _sum_and_product,
    aten.baddbmm.default: _sum_and_product,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.sum.dim_IntList: _column_sum,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten._foreach_norm.Scalar: _norms,
    aten._scaled_dot_product_efficient_attention_backward.default: _attention_backward,
    aten._scaled_dot_product_flash_attention_backward.default: _attention_backward,
    flash_attention.default: _package_forward,
    flash_attention_backward.default: _package_backward,
}
