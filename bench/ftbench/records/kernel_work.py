"""Kernel work: what the kernels of a step have to do, by shape, type and kind. Plain data.

A model of time needs more than sums: a small product fills few multiprocessors, and half a causal square of
attention is skipped. Rows that are alike are one row with a count.
"""

from __future__ import annotations

from typing import Literal

from ftbench.base.frozen import FrozenModel

MemoryKind = Literal[
    "elementwise",
    "activation",
    "copy",
    "normalization",
    "softmax",
    "dropout",
    "gather",
    "reduction",
    "lists",
]


class Product(FrozenModel):
    """Matrix products of one shape: `batch` products of [m, k] and [k, n], `count` times.

    `dtype` is that of the operands, as torch names it (`float32`). A convolution is the product that it is
    equivalent to. `flops_only` marks a product of an operator whose shape is not known: its FLOPs are right.
    """

    batch: int
    m: int
    n: int
    k: int
    dtype: str
    count: int = 1
    flops_only: bool = False

    @property
    def flops(self) -> int:
        """Return the FLOPs of all of them: a multiplication and an addition for each element of the sums."""
        return 2 * self.batch * self.m * self.n * self.k * self.count


class AttentionCall(FrozenModel):
    """Calls of a fused attention kernel of one shape, `count` times.

    `call_flops` are those of one call over the full square of queries and keys; of a `causal` one, kernels skip the
    half above the diagonal. `length` is that of the keys.
    """

    call_flops: int
    length: int
    dtype: str
    causal: bool
    backward: bool
    count: int = 1

    @property
    def flops(self) -> float:
        """Return the FLOPs that all of them carry out: without the half that a causal one skips."""
        return self.call_flops * self.count * (0.5 if self.causal else 1.0)


class MemoryKernels(FrozenModel):
    """All operators of one kind, type and order of size that are limited by memory: their bytes and their kernels.

    `update` is for those after a step's backward pass: clipping and the optimizer. An operator over lists of
    tensors starts few kernels for all; `tensors` counts one for each, as a loop over parameters starts them.
    """

    kind: MemoryKind
    dtype: str
    update: bool
    nbytes: int
    kernels: int
    tensors: int


class KernelWork(FrozenModel):
    """The kernels of some batches. Their FLOPs, bytes and numbers add up to those of `PassWork`."""

    products: tuple[Product, ...] = ()
    attention: tuple[AttentionCall, ...] = ()
    memory: tuple[MemoryKernels, ...] = ()

    @property
    def attention_length(self) -> int:
        """Return the longest fused attention; 0 without any."""
        return max((call.length for call in self.attention), default=0)
