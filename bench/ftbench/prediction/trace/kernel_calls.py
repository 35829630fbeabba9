"""Kernel calls: the shape, type and kind of every operator that starts a kernel, in the order of a trace.

Each number of a call is affine in the batch size, so two traces give the calls at every batch
(`calls_at_batch`). The layers of a stack are alike, so traces with two depths give every depth (`work_at_depth`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from ftbench.base.errors import PredictionError
from ftbench.records.kernel_work import (
    AttentionCall,
    KernelWork,
    MemoryKernels,
    MemoryKind,
    Product,
)

_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}  # the first operand's place
# The side of the square product that stands for an operator with FLOPs whose shape is not known.
_SQUARE = 1024
_KINDS: tuple[tuple[MemoryKind, tuple[str, ...]], ...] = (
    ("lists", ("_foreach", "_fused", "_amp_foreach")),
    ("activation", ("gelu", "silu", "tanh", "sigmoid", "relu", "threshold", "mish", "exp", "erf")),
    ("normalization", ("native_layer_norm", "_fused_rms_norm", "native_batch_norm", "native_group_norm")),
    ("softmax", ("_softmax", "_log_softmax")),
    ("dropout", ("native_dropout", "bernoulli")),
    ("gather", ("embedding", "index", "gather", "scatter")),
    ("reduction", ("sum", "mean", "norm", "linalg_vector_norm", "amax", "max")),
    ("copy", ("_to_copy", "copy_", "clone")),
)  # fmt: skip


class KernelCall(NamedTuple):
    """One operator that starts kernels.

    `dims` of a product are batch, m, n and k of each of its parts, one after the other; of attention the length of
    the keys; of an operator that is limited by memory the tensors of its longest list, or 1. `flags` of such an
    operator say whether it comes after backward; of attention whether it is causal and of the backward pass; of a
    product whether its shape is unknown. `flops` are zero for an operator that is limited by memory.
    """

    kind: Literal["product", "attention", "memory"]
    operator: str
    dtype: str
    flags: tuple[bool, ...]
    dims: tuple[int, ...]
    flops: int
    nbytes: int
    kernels: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return all that may differ between batch sizes."""
        return (*self.dims, self.flops, self.nbytes, self.kernels)

    def with_numbers(self, numbers: Sequence[int]) -> KernelCall:
        """Return the same call with these numbers."""
        *dims, flops, nbytes, kernels = numbers
        return self._replace(dims=tuple(dims), flops=flops, nbytes=nbytes, kernels=kernels)


def kernel_call(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    output: Any,
    *,
    flops: int,
    nbytes: int,
    kernels: int,
    update: bool,
) -> KernelCall:
    """Return the call of an operator with these FLOPs, bytes and kernels; `update` is for one after backward."""
    name = func._schema.name.rpartition("::")[2]
    dtype = _dtype(args, output)
    if not flops:
        return KernelCall("memory", name, dtype, (update,), (_tensors(args),), 0, nbytes, kernels)
    if "attention" in name:
        flags = (_is_causal(func, args, kwargs), "backward" in name)
        length = (_key_length(func, args, kwargs),)
        return KernelCall("attention", name, dtype, flags, length, flops, nbytes, kernels)
    dims = _dims(name, args, output)
    if 2 * sum(map(math.prod, _by_four(dims))) != flops:
        dims = (1, max(1, round(flops / (2 * _SQUARE * _SQUARE))), _SQUARE, _SQUARE)
        return KernelCall("product", name, dtype, (True,), dims, flops, nbytes, kernels)
    return KernelCall("product", name, dtype, (False,), dims, flops, nbytes, kernels)


def kernel_work(calls: Iterable[tuple[KernelCall, int]]) -> KernelWork:
    """Return the work of calls, each with the number of times it is made; those that are alike are one row."""
    products: Counter[tuple[Any, ...]] = Counter()
    attention: Counter[tuple[Any, ...]] = Counter()
    nbytes: Counter[tuple[MemoryKind, str, bool, int]] = Counter()
    kernels: Counter[tuple[MemoryKind, str, bool, int]] = Counter()
    tensors: Counter[tuple[MemoryKind, str, bool, int]] = Counter()
    for call, count in calls:
        if call.kind == "product":
            for dims in _by_four(call.dims):
                products[(*dims, call.dtype, *call.flags)] += count
        elif call.kind == "attention":
            attention[call.flops, *call.dims, call.dtype, *call.flags] += count
        else:
            key = (_kind(call.operator), call.dtype, call.flags[0], _order_of_size(call))
            nbytes[key] += call.nbytes * count
            kernels[key] += call.kernels * count
            tensors[key] += call.dims[0] * count
    return KernelWork(
        products=tuple(
            Product(batch=b, m=m, n=n, k=k, dtype=dtype, count=count, flops_only=unknown)
            for (b, m, n, k, dtype, unknown), count in products.items()
        ),
        attention=tuple(
            AttentionCall(
                call_flops=flops,
                length=length,
                dtype=dtype,
                causal=causal,
                backward=backward,
                count=count,
            )
            for (flops, length, dtype, causal, backward), count in attention.items()
        ),
        memory=tuple(
            MemoryKernels(
                kind=key[0],
                dtype=key[1],
                update=key[2],
                nbytes=nbytes[key],
                kernels=number,
                tensors=tensors[key],
            )
            for key, number in kernels.items()
        ),
    )


def calls_at_batch(
    one: Sequence[KernelCall], a: int, other: Sequence[KernelCall], b: int, batch: int
) -> list[KernelCall]:
    """Return the calls at a batch size, from those at the sizes `a` and `b`.

    Raises PredictionError if the two traces have other operators than each other: then they say nothing.
    """
    if [call[:4] for call in one] != [call[:4] for call in other]:
        raise PredictionError(
            "the operators of a step depend on the batch size", got=f"{len(one)}, {len(other)}"
        )
    return [
        x.with_numbers(
            [_line(u, v, (batch - a) / (b - a)) for u, v in zip(x.numbers, y.numbers, strict=True)]
        )
        for x, y in zip(one, other, strict=True)
    ]


def calls_at_depth(
    one: Sequence[KernelCall], a: int, other: Sequence[KernelCall], b: int, layers: int
) -> list[tuple[KernelCall, int]]:
    """Return the calls, and how often each is made, of a model with `layers` layers, from those with `a` and `b`.

    A layer's calls are the same in every layer: their number is affine in the layers. An operator over lists of
    all parameters is called as often, with numbers that are affine in the layers.
    """
    share = (layers - a) / (b - a)
    few, many = Counter(one), Counter(other)
    found = [(call, _line(few[call], many[call], share)) for call in many if call in few]
    left = [call for call in one if call not in many]
    right = [call for call in other if call not in few]
    if [call[:4] for call in left] != [call[:4] for call in right]:
        raise PredictionError(
            "the operators of a model's layers differ", got=f"{len(left)}, {len(right)}"
        )
    for x, y in zip(left, right, strict=True):
        numbers = [_line(u, v, share) for u, v in zip(x.numbers, y.numbers, strict=True)]
        found.append((x.with_numbers(numbers), 1))
    return [(call, count) for call, count in found if count > 0]


def _line(u: int, v: int, share: float) -> int:
    return round(u + (v - u) * share)


def _by_four(dims: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]


def _order_of_size(call: KernelCall) -> int:
    """Return the power of four of an operator's bytes per kernel: a small kernel has its data in a cache."""
    return max(1, call.nbytes // max(1, call.kernels)).bit_length() // 2


def _kind(operator: str) -> MemoryKind:
    for kind, starts in _KINDS:
        if operator.startswith(starts):
            return kind
    return "elementwise"


def _dtype(args: tuple[Any, ...], output: Any) -> str:
    """Return the type of the first floating tensor that is read, else of the first that is written or read."""
    tensors = [x for x in tree_leaves((args, output)) if isinstance(x, torch.Tensor)]
    chosen = next((x for x in tensors if x.is_floating_point()), tensors[0] if tensors else None)
    return str(chosen.dtype).removeprefix("torch.") if chosen is not None else ""


def _tensors(args: tuple[Any, ...]) -> int:
    """Return the number of tensors in the longest list of an operator's arguments, at least 1."""
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg]
    return max((len(each) for each in lists if isinstance(each[0], torch.Tensor)), default=1)


def _dims(name: str, args: tuple[Any, ...], output: Any) -> tuple[int, ...]:
    """Return batch, m, n and k of each product of an operator; empty if it is none that is known."""
    if name in _PRODUCTS:
        left, right = args[_PRODUCTS[name] :][:2]
        batch = left.shape[0] if left.dim() == 3 else 1
        return int(batch), int(left.shape[-2]), int(right.shape[-1]), int(left.shape[-1])
    if name == "convolution":
        return _of_convolution(output, args[1], int(args[8]))
    if name == "convolution_backward":
        forward = _of_convolution(args[0], args[2], int(args[9]))
        groups, m, n, k = forward
        wanted = args[10]
        of_input, of_weight = (groups, m, k, n), (groups, n, k, m)
        return (*(of_input if wanted[0] else ()), *(of_weight if wanted[1] else ()))
    return ()


def _of_convolution(output: Any, weight: Any, groups: int) -> tuple[int, int, int, int]:
    places = output.numel() // output.shape[1]
    return groups, places, weight.shape[0] // groups, math.prod(weight.shape[1:])


def _is_causal(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return bool(_argument("is_causal", func, args, kwargs) or False)


def _key_length(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the length of the keys: torch's own operators have heads before it, the package's after it."""
    key = _argument("key", func, args, kwargs)
    if key is None:
        return 0
    heads_first = func._schema.name.startswith("aten::")
    return int(key.shape[-2 if heads_first else -3])


def _argument(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an operator's argument by its name; None if it has none of this name, or it was not given."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[place] if place < len(args) else kwargs.get(name)
    return None
