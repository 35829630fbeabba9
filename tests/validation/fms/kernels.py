"""The plugin's kernels, for memory: what each keeps for the backward pass, allocates, and writes in place.

Source: github.com/foundation-model-stack/fms-acceleration, plugins/fused-ops-and-kernels (0aab2c6f and earlier),
which has the Triton kernels of Unsloth (1ecc0185) and of Liger-Kernel. Here nothing is computed; R are the rows, H
the width, V the vocabulary.

    RMS norm             kernels/unsloth/rms_layernorm.py       output [R, H], reciprocal deviations [R] float32;
                                                                backward in place, no gradient of the weight
    rotary embedding     kernels/unsloth/rope_embedding.py      in place, both ways
    cross entropy        kernels/unsloth/cross_entropy_loss.py  losses and logarithms [R] float32 (of V above
                                                                65,536 by chunks); backward in place of the logits
    fused linear cross   kernels/liger/fused_linear_cross_      gradients of input [R, H] and, if trained, weight;
    entropy              entropy_loss.py                        logits of one chunk in three copies
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_MOST_COLUMNS = 65536  # MAX_FUSED_SIZE of the cross entropy
IGNORED = -100


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows = x.view(-1, x.shape[-1])
        made, deviations = torch.empty_like(rows), _per_row(rows)
        ctx.save_for_backward(rows, weight, deviations)
        return made.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Rotary(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        batch, length, heads, width = gradient.shape
        return gradient.reshape(batch * length, heads * width).view(gradient.shape)


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        losses = _per_row(logits)
        chunks = -(-logits.shape[1] // _MOST_COLUMNS)
        logarithms = _per_row(logits) if chunks == 1 else _per_row(logits, chunks).sum(1)
        ctx.save_for_backward(logits, logarithms, labels)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, _, _ = ctx.saved_tensors
        return logits, None


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, scaled: bool) -> Tensor:
        rows = x.shape[0]
        of_weight = torch.zeros_like(weight) if weight.requires_grad else None
        of_input, losses = torch.zeros_like(x), torch.zeros_like(_per_row(x))
        chunk = _power_of_two(-(-rows // -(-weight.shape[0] // x.shape[1])))
        for start in range(0, rows, chunk):
            part = x[start : start + chunk]
            logits = part @ weight.t()
            if scaled:
                logits /= 1.0
            logits = logits.float()
            logits = logits.to(x.dtype)  # autocast's type is that of the weights in these runs
            gradients = logits * 1.0
            of_input[start : start + chunk] = gradients @ weight
            if of_weight is not None:
                torch.addmm(of_weight, logits.t(), part, out=of_weight)
        ctx.save_for_backward(of_input, of_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        of_input, of_weight = ctx.saved_tensors
        return of_input, of_weight, None, None


def rms_norm(module: Any, x: Tensor) -> Tensor:
    """Return a fast RMS norm, in place of the forward method of a norm of transformers."""
    return _RmsNorm.apply(x, module.weight)


def rotary(query: Tensor, key: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """Return queries and keys with their positions, in place of `apply_rotary_pos_emb`."""
    of_query, of_key = (
        _Rotary.apply(tensor.transpose(1, 2)).transpose(1, 2) for tensor in (query, key)
    )
    return of_query, of_key


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a fast cross entropy of logits [R, V]."""
    losses = _CrossEntropy.apply(logits, labels)
    return losses.sum() / torch.count_nonzero(labels != IGNORED)


def linear_cross_entropy(x: Tensor, weight: Tensor, labels: Tensor, *, scaled: bool) -> Tensor:
    """Return the loss of a head that is never computed as a whole; `scaled` if logits are divided first."""
    return _LinearCrossEntropy.apply(x, weight, labels, scaled)


def _per_row(matrix: Tensor, *columns: int) -> Tensor:
    return matrix.new_empty(matrix.shape[0], *columns, dtype=torch.float32)


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
