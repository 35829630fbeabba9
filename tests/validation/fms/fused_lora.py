"""The plugin's fused LoRA on a base of 4 bits, for memory: the projections of attention as operators of their own.

Source: `fused_ops/unsloth_lora` (`bnb/fast_lora.py`, `utils.py`) of the plugin fused-ops-and-kernels,
github.com/foundation-model-stack/fms-acceleration (0aab2c6f). Each weight is dequantised once per product and
freed; the input and, with dropout, what it leaves of it are kept; backward writes the gradient of queries, keys and
values in place of their input.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

_QKV = ("q_proj", "k_proj", "v_proj")
_OUTPUT = "o_proj"


class _Adapter(NamedTuple):
    """How a projection's frozen weight is quantised, and its matrices: `a` [rank, inputs], `b` [outputs, rank]."""

    state: Any
    a: Tensor
    b: Tensor
    scale: float
    dropout: Callable[[Tensor], Tensor]


class _Projections(Function):
    """Several projections of one input; `in_place` if its gradient takes the input's place."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, adapters: tuple[_Adapter, ...], in_place: bool, *_: Tensor
    ) -> tuple[Tensor, ...]:
        rows = x.view(-1, x.shape[-1])
        made, dropped = zip(*(_product(rows, one) for one in adapters), strict=True)
        ctx.adapters, ctx.in_place, ctx.shape = adapters, in_place, x.shape
        ctx.save_for_backward(rows, *dropped)
        return tuple(result.view(*x.shape[:-1], -1) for result in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x, *dropped = ctx.saved_tensors
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        of_matrices: list[Tensor] = []
        for gradient, inputs, one in zip(flat, dropped, ctx.adapters, strict=True):
            of_matrices += _of_matrices(gradient, inputs, one)
        made: Tensor | None = None
        for gradient, inputs, one in zip(flat, dropped, ctx.adapters, strict=True):
            weight = _dequantised(one.state, one.a.device)
            if made is None:
                made = torch.matmul(gradient, weight, out=x if ctx.in_place else None)
            else:
                made += gradient @ weight
            del weight
            a, b = one.a.to(x.dtype), one.b.to(x.dtype)
            made += (inputs != 0) * (gradient @ b @ (one.scale * a))
        assert made is not None
        return (made.view(ctx.shape), None, None, *of_matrices)


def fuse(attention: Any) -> None:
    """Give the projections of an attention module fused forward methods, as the plugin does for LoRA layers."""
    projections = [getattr(attention, name) for name in _QKV]
    if all(map(_is_adapted, projections)):
        _fuse_three(projections)
    output = getattr(attention, _OUTPUT)
    if _is_adapted(output):
        output.forward = types.MethodType(lambda self, x: _projected(x, [self], False)[0], output)


def _fuse_three(projections: list[Any]) -> None:
    """The first of the three that is called computes all; each gives its result away when it is called."""
    waiting: dict[int, Tensor] = {}
    in_place = all(
        hasattr(_state_of(one.base_layer), "absmax") for one in projections
    )  # not GPTQ's

    def forward_of(place: int) -> Callable[[Any, Tensor], Tensor]:
        def forward(_: Any, x: Tensor) -> Tensor:
            if not waiting:
                waiting.update(enumerate(_projected(x, projections, in_place)))
            return waiting.pop(place)

        return forward

    for place, projection in enumerate(projections):
        projection.forward = types.MethodType(forward_of(place), projection)


def _projected(x: Tensor, projections: list[Any], in_place: bool) -> tuple[Tensor, ...]:
    adapters = tuple(map(_adapter, projections))
    matrices = [matrix for one in adapters for matrix in (one.a, one.b)]
    return _Projections.apply(x, adapters, in_place, *matrices)


def _is_adapted(module: Any) -> bool:
    return all(hasattr(module, name) for name in ("lora_A", "lora_B", "base_layer"))


def _adapter(projection: Any) -> _Adapter:
    (name,) = projection.active_adapters
    return _Adapter(
        _state_of(projection.base_layer),
        projection.lora_A[name].weight,
        projection.lora_B[name].weight,
        projection.scaling[name],
        projection.lora_dropout[name],
    )


def _product(x: Tensor, one: _Adapter) -> tuple[Tensor, Tensor]:
    """Return a projection of rows and the dropped input (`matmul_lora`)."""
    weight = _dequantised(one.state, one.a.device)
    made = torch.matmul(x, weight.t())
    del weight
    dropped = one.dropout(x)
    made += (dropped @ one.a.t().to(x.dtype)) @ (one.scale * one.b.t().to(x.dtype))
    return made, dropped


def _state_of(base: Any) -> Any:
    """Return how a weight is quantised; bitsandbytes keeps it beside the weight, too, and looks for it in both."""
    return getattr(getattr(base, "weight", None), "quant_state", None) or base.quant_state


def _dequantised(state: Any, device: torch.device) -> Tensor:
    """Return a weight in half precision (`fast_dequantize`); the scales of its blocks are there meanwhile."""
    made = torch.empty(state.shape, dtype=state.dtype, device=device)
    if not hasattr(
        state, "absmax"
    ):  # GPTQ's, whose kernel reads packed values and scales; inputs come first
        return made.t()
    scales = torch.empty(state.absmax.numel(), dtype=torch.float32, device=device)
    scales += state.offset
    return made


def _of_matrices(gradient: Tensor, x: Tensor, one: _Adapter) -> tuple[Tensor, Tensor]:
    """Return the gradients of an adapter's two matrices; autocast makes products of half precision of them."""
    a, b = one.a.to(x.dtype), one.b.to(x.dtype)
    of_a = x.t() @ (gradient @ b)
    of_b = (a @ x.t()) @ gradient
    of_a *= one.scale
    of_b *= one.scale
    return of_a.t().to(one.a.dtype), of_b.t().to(one.b.dtype)
