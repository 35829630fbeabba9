"""Adapters of a quantised base beside FSDP1: every card has them whole, and their gradients are reduced one by one.

The plugin's fused LoRA reads the matrices without calling their modules, whose parameters FSDP would not have
gathered then. Source: `lora_adapters_switch_ddp_from_fsdp` (`utils.py` of the plugin fused-ops-and-kernels,
github.com/foundation-model-stack/fms-acceleration, 0aab2c6f).

The plugin moves the matrices to the card after the Trainer was made and before it trains. The published peaks are
sums of what the Trainer saw in these two stages (`extract_gpu_memory_metrics` of
`scripts/benchmarks/benchmark.py`), so the matrices themselves are in none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist
import transformers
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ftbench.prediction.trace import patches


@contextlib.contextmanager
def adapters_on_every_card() -> Iterator[list[int]]:
    """Keep the adapters of a Trainer's model out of FSDP's units; the list gets the bytes of each matrix."""
    uncounted: list[int] = []
    with patches.replaced(transformers.Trainer, "train", lambda f: _left_out(f, uncounted)):
        yield uncounted


def _left_out(original: Callable[..., Any], uncounted: list[int]) -> Callable[..., Any]:
    def train(self: Any, *args: Any, **named: Any) -> Any:
        layers = [module for module in self.model.modules() if isinstance(module, LoraLayer)]
        matrices = [part for layer in layers for part in (layer.lora_A, layer.lora_B)]
        self.accelerator.state.fsdp_plugin.ignored_modules = matrices
        for part in matrices:
            for parameter in part.to(self.accelerator.device).parameters():
                parameter.register_hook(_reduced)
                uncounted.append(parameter.nbytes)
        return original(self, *args, **named)

    return train


def _reduced(gradient: Tensor) -> Tensor:
    gradient = gradient.contiguous()
    dist.all_reduce(gradient)
    return gradient
