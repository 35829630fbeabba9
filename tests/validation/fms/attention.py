"""Attention as transformers before 4.48 wrote it, where that takes other memory, while a trace lasts.

`MistralFlashAttention2` and `MixtralFlashAttention2` repeated keys and values to the heads of the queries before
flash-attn, which needs no such thing; those of Llama and Granite did not (transformers 4.44.2,
`modeling_*.py`). The attention interface of 4.48 ended it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ftbench.prediction.trace import patches

_REPEATING = ("mistral", "mixtral")
_INTERFACE_SINCE = (4, 48)


@contextlib.contextmanager
def attention_as_published(model_type: str, version: tuple[int, int]) -> Iterator[None]:
    """Repeat keys and values in the models of a type, if a version of transformers did."""
    if model_type not in _REPEATING or version >= _INTERFACE_SINCE:
        yield
        return
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")

    def repeating(interfaces: Any) -> SimpleNamespace:
        def get_interface(*names: Any) -> Callable[..., Any]:
            return _repeating(interfaces.get_interface(*names), module.repeat_kv)

        return SimpleNamespace(get_interface=get_interface)

    with patches.replaced(module, "ALL_ATTENTION_FUNCTIONS", repeating):
        yield


def _repeating(attention: Callable[..., Any], repeat: Callable[..., Tensor]) -> Callable[..., Any]:
    def forward(
        self: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any
    ) -> Any:
        key, value = (repeat(tensor, self.num_key_value_groups) for tensor in (key, value))
        return attention(self, query, key, value, *args, **named)

    return forward
