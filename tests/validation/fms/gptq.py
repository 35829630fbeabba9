"""A GPTQ base, for memory: weights of 4 bits in integers of 32, dequantised for each product.

Source: plugins/accelerated-peft of github.com/foundation-model-stack/fms-acceleration, which has the Triton kernels
of GPTQModel (`nn_modules/qlinear/qlinear_tritonv2.py`, `triton_utils/dequant.py`). For I inputs, O outputs and
groups of G:

    qweight [I / 8, O] int32    qzeros [I / G, O / 8] int32    scales [I / G, O] float16    g_idx [I] int32
    in each product, also of the backward pass: the weight [I, O] float16; nothing of it is kept

On several cards, FSDP1 shards `qweight` and `qzeros`, which the plugin makes parameters of half precision
(`framework_plugin_autogptq.py`); every card has scales and indices whole.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from ftbench.prediction.trace import patches

_PACKED = 8  # weights of 4 bits in an integer of 32
_SHARDED = ("qweight", "qzeros")


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Any) -> Tensor:
        ctx.state, ctx.device = state, x.device
        return x @ dequantised(state, x.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ dequantised(ctx.state, ctx.device).t(), None


class GptqLinear(nn.Linear):
    """A quantised linear layer, whose `weight` is None; a linear layer to peft, whose adapters are the same."""

    def __init__(
        self, inputs: int, outputs: int, group: int, sharded_as: torch.dtype | None = None
    ):
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        groups = 1 if group < 0 else -(-inputs // group)
        for name, shape in (
            ("qweight", (inputs // _PACKED, outputs)),
            ("qzeros", (groups, outputs // _PACKED)),
            ("g_idx", (inputs,)),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))
        for name in () if sharded_as is None else _SHARDED:
            packed = self._buffers.pop(name)
            assert packed is not None
            self.register_parameter(
                name, nn.Parameter(packed.view(sharded_as), requires_grad=False)
            )
        self.register_buffer("scales", torch.zeros(groups, outputs, dtype=torch.float16))
        self.quant_state = SimpleNamespace(shape=(inputs, outputs), dtype=torch.float16)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        return _Product.apply(rows, self.quant_state).view(*x.shape[:-1], self.out_features)


def dequantised(state: Any, device: torch.device) -> Tensor:
    """Return a weight [inputs, outputs] in half precision."""
    return torch.empty(state.shape, dtype=state.dtype, device=device)


@contextlib.contextmanager
def gptq_base(
    model_type: str, group: int, vocabulary: int, sharded_as: torch.dtype | None = None
) -> Iterator[None]:
    """Build an architecture's linear layers as quantised ones while the context lasts, but for the head.

    `sharded_as` is the type of the other weights if FSDP1 shards them together.
    """
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")

    def linear(inputs: int, outputs: int, **named: Any) -> nn.Module:
        if outputs == vocabulary:
            return nn.Linear(inputs, outputs, **named)
        return GptqLinear(inputs, outputs, group, sharded_as)

    with patches.replaced(module, "nn", lambda original: _with_linear(original, linear)):
        yield


def _with_linear(original: Any, linear: Any) -> SimpleNamespace:
    return SimpleNamespace(**vars(original) | {"Linear": linear})
