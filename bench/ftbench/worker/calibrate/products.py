"""Products and fused attention on this device, over the shapes that fine-tunes have."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator

import torch
from torch.nn import functional

from ftbench.records.calibration import AttentionTiming, ProductTiming
from ftbench.worker.calibrate.timing import seconds_per_call
from ftbench.worker.measure.device import DTYPES

Shape = tuple[int, int, int, int]
# Sides of products: tokens of a batch, and the widths of models and their feed-forward layers.
_TOKENS = (64, 256, 1024, 4096, 16384)
_WIDTHS = (64, 256, 384, 768, 1024, 1536, 3072, 4096, 11008)
# Attention without a fused kernel: products of heads, of a length and a head's width.
_HEADS = (16, 96, 384)
_LENGTHS = (32, 64, 128, 512, 1024)
_HEAD_WIDTHS = (32, 64, 128)
# The largest product: on a card it takes milliseconds; on a CPU, some tenths of a second.
_MOST_FLOPS = {"cpu": 2e10, "cuda": 2e13}
_MOST_BYTES = 2**30
_SHAPES = {"cpu": 90, "cuda": 160}
_QUICK_SHAPES = 30
# Operands that take turns: so many bytes of them, or so many.
_BEYOND_CACHES = 2**27
_MOST_OPERANDS = 32
_ATTENTION_HEADS = 12
_ATTENTION_WIDTH = 64


def dtypes_of(device: torch.device) -> tuple[str, ...]:
    """Return the types that are worth measuring: on a CPU without instructions for half types, float32 alone."""
    if device.type == "cuda":
        return ("float32", "float16", "bfloat16")
    return ("float32",)


def product_timings(device: torch.device, *, quick: bool) -> Iterator[ProductTiming]:
    """Yield the time of products of each type: a seeded choice among all shapes that are small enough.

    The calls take turns with several operands, which together do not fit into a cache: a step's do not either.
    """
    for dtype in dtypes_of(device):
        for batch, m, n, k in shapes_for(device.type, quick=quick):
            size = batch * (m * k + k * n) * DTYPES[dtype].itemsize
            operands = itertools.cycle(
                [
                    _operands((batch, m, n, k), dtype, device)
                    for _ in range(max(1, min(_MOST_OPERANDS, _BEYOND_CACHES // size)))
                ]
            )
            multiply = torch.mm if batch == 1 else torch.bmm
            yield ProductTiming(
                batch=batch,
                m=m,
                n=n,
                k=k,
                dtype=dtype,
                seconds=seconds_per_call(lambda: multiply(*next(operands)), device),  # noqa: B023
            )


def _operands(shape: Shape, dtype: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two operands; the second lies transposed, as a linear layer's weight does."""
    batch, m, n, k = shape
    a = torch.randn(batch, m, k, device=device).to(DTYPES[dtype])
    b = torch.randn(batch, n, k, device=device).to(DTYPES[dtype]).transpose(1, 2)
    return (a[0], b[0]) if batch == 1 else (a, b)


def shapes_for(kind: str, *, quick: bool) -> list[Shape]:
    """Return the shapes [batch, m, n, k] that are measured on a kind of device."""
    linear = [
        shape
        for tokens, inner, outer in itertools.product(_TOKENS, _WIDTHS, _WIDTHS)
        for shape in ((1, tokens, outer, inner), (1, outer, inner, tokens))
    ]
    heads = [
        shape
        for batch, length, width in itertools.product(_HEADS, _LENGTHS, _HEAD_WIDTHS)
        for shape in ((batch, length, length, width), (batch, length, width, length))
    ]
    draw = random.Random(0)
    chosen = []
    for shapes, share in ((linear, 0.7), (heads, 0.3)):
        possible = [one for one in dict.fromkeys(shapes) if _is_small_enough(one, kind)]
        number = min(len(possible), round(share * (_QUICK_SHAPES if quick else _SHAPES[kind])))
        chosen += draw.sample(possible, number)
    return chosen


def _is_small_enough(shape: Shape, kind: str) -> bool:
    b, m, n, k = shape
    return 2 * b * m * n * k <= _MOST_FLOPS[kind] and 4 * b * (m * k + k * n + m * n) <= _MOST_BYTES


def attention_timings(device: torch.device) -> Iterator[AttentionTiming]:
    """Yield the time of fused attention, forward and backward, over lengths and sizes of batches.

    A case that a card has no memory for is left out: without a fused kernel in a type, torch makes all scores.
    """
    batches = (1, 8) if device.type == "cpu" else (1, 8, 32)
    for dtype, length, batch in itertools.product(dtypes_of(device), (128, 512, 2048), batches):
        flops = 4 * batch * _ATTENTION_HEADS * length * length * _ATTENTION_WIDTH
        if flops > _MOST_FLOPS[device.type] / 4:
            continue
        shape = (batch, _ATTENTION_HEADS, length, _ATTENTION_WIDTH)
        try:
            alone, together = _seconds_of_attention(shape, dtype, device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        yield AttentionTiming(
            dtype=dtype, length=length, backward=False, flops=flops, seconds=alone
        )
        yield AttentionTiming(
            dtype=dtype,
            length=length,
            backward=True,
            flops=flops * 5 // 2,  # five products for two
            seconds=max(together - alone, alone),
        )


def _seconds_of_attention(
    shape: tuple[int, ...], dtype: str, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of a forward pass, and of one with its backward pass."""
    q, k, v = (
        torch.randn(shape, device=device).to(DTYPES[dtype]).requires_grad_() for _ in range(3)
    )
    forward = functools.partial(functional.scaled_dot_product_attention, q, k, v)
    grad = torch.ones_like(q)

    def both() -> None:
        torch.autograd.grad(forward(), (q, k, v), grad)

    return seconds_per_call(forward, device), seconds_per_call(both, device)
