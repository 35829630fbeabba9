"""Operators that move memory, by kind and size, and an optimizer's update."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ftbench.records.calibration import MemoryTiming
from ftbench.records.kernel_work import MemoryKind
from ftbench.worker.calibrate.timing import OperatorCounter, seconds_per_call

aten = torch.ops.aten
Call = Callable[[], object]

# Elements of a tensor: from one that costs no more than its start to one far beyond all caches.
_ELEMENTS = {"cpu": [4**n for n in range(4, 13)], "cuda": [4**n for n in range(4, 15)]}
# Tensors of that size, in float32, that are there at once: ten at most.
_BYTES_PER_ELEMENT = 40
# The width of rows, as of a hidden state, and the least rows of a tensor.
_WIDTH = 256
# A vocabulary, of which an embedding's gradient has every row.
_VOCABULARY = 30_522
# The tensors that an update has at once: as many as fit into these elements, at most as many as a small model has.
_UPDATED_ELEMENTS = 4**12
_MOST_UPDATED = 64
_LEARNING_RATE = 1e-3
_UPDATES: dict[MemoryKind, bool] = {"lists": True, "elementwise": False}


def memory_timings(device: torch.device, *, quick: bool) -> Iterator[MemoryTiming]:
    """Yield the time per kernel of every kind of operator at every size; at every third if it is to be quick."""
    for elements in elements_for(device.type, _free_bytes(device), quick=quick):
        for kind, calls in _operators(elements, device).items():
            yield _timed(kind, calls, device, update=False)
        yield from update_timings(elements, device)


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cpu":
        return None
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def elements_for(kind: str, free_bytes: int | None, *, quick: bool) -> list[int]:
    """Return the elements of tensors that are measured on a kind of device; on a card, those that fit."""
    sizes = _ELEMENTS[kind][:: 3 if quick else 1]
    return [n for n in sizes if free_bytes is None or _BYTES_PER_ELEMENT * n <= free_bytes]


def _operators(elements: int, device: torch.device) -> dict[MemoryKind, list[Call]]:
    """Return operators of each kind on tensors of about so many elements, forward and backward alike."""
    x, y = (torch.randn(elements // _WIDTH or 1, _WIDTH, device=device) for _ in range(2))
    total = torch.zeros_like(x)
    weight, bias = torch.ones(_WIDTH, device=device), torch.zeros(_WIDTH, device=device)
    _, mean, deviation = aten.native_layer_norm(x, [_WIDTH], weight, bias, 1e-5)
    soft = aten._softmax(x, -1, False)
    heads = x.view(-1, 4, _WIDTH // 4).transpose(0, 1)
    table = torch.randn(_VOCABULARY, _WIDTH, device=device)
    rows = torch.arange(len(x), device=device) % _VOCABULARY
    mask = torch.empty_like(x)
    of = functools.partial
    drop: list[Call] = (
        [of(aten.native_dropout, x, 0.1, True)]
        if device.type == "cuda"
        else [
            of(aten.bernoulli_, mask, 0.9)
        ]  # one of its operators on a CPU; the others are elementwise
    )
    return {
        "elementwise": [of(torch.add, x, y), of(torch.mul, x, y), of(aten.add_, total, y)],
        "activation": [of(aten.gelu, x), of(aten.gelu_backward, y, x)],
        "copy": [of(aten.clone, x), of(aten.clone, heads, memory_format=torch.contiguous_format)],
        "normalization": [
            of(aten.native_layer_norm, x, [_WIDTH], weight, bias, 1e-5),
            of(aten.native_layer_norm_backward, y, x, [_WIDTH], mean, deviation, weight, bias, [True] * 3),
        ],
        "softmax": [
            of(aten._softmax, x, -1, False),
            of(aten._softmax_backward_data, y, soft, -1, torch.float32),
        ],
        "dropout": drop,
        "gather": [
            of(aten.embedding, table, rows),
            of(aten.embedding_dense_backward, x, rows, _VOCABULARY, -1, False),
        ],
        "reduction": [of(aten.sum, x, [0], True)],
    }  # fmt: skip


def _timed(
    kind: MemoryKind, calls: list[Call], device: torch.device, *, update: bool
) -> MemoryTiming:
    """Return the mean over operators that take turns, as forward and backward passes do."""
    counter = OperatorCounter(device)
    with counter:
        for call in calls:
            call()
    seconds = sum(seconds_per_call(call, device) for call in calls)
    return MemoryTiming(
        kind=kind,
        update=update,
        nbytes=counter.nbytes / counter.kernels,
        seconds=seconds / counter.kernels,
    )


def update_timings(elements: int, device: torch.device) -> Iterator[MemoryTiming]:
    """Yield the time per kernel of AdamW's update of parameters of this size; on a CPU with Python's part.

    First in one kernel per parameter or list of them, as the Trainer has it by default, then operator by operator.
    """
    number = max(1, min(_MOST_UPDATED, _UPDATED_ELEMENTS // elements))
    for kind, fused in _UPDATES.items():
        optimizer = optimizer_of([elements] * number, device, fused=fused)
        yield _timed(kind, [optimizer.step], device, update=True)


def optimizer_of(sizes: list[int], device: torch.device, *, fused: bool) -> Any:
    """Return an AdamW after its first step over parameters of these sizes, which have gradients."""
    parameters = [torch.nn.Parameter(torch.randn(size, device=device)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=fused)
    optimizer.step()  # makes its state
    return optimizer
