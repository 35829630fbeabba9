"""The plugin fused-ops-and-kernels of fms-acceleration, put in place of transformers' code while a trace lasts.

Its rules by architecture (`models/*.py` of the plugin): norms, rotary embedding and loss of Llama, Mistral, Mixtral
and Granite, the loss alone of GPT-BigCode. Fused LoRA is for quantised bases only
(`framework_plugin_fast_kernels.py`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from ftbench.prediction.trace import patches
from tests.validation.fms import kernels
from tests.validation.fms.fused_lora import fuse

_ARCHITECTURES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "mixtral": "Mixtral",
    "granite": "Granite",
}
# The attribute by which an attention module says that it was looked at.
_SEEN = "_fused"


@contextlib.contextmanager
def fast_kernels(model_type: str, *, quantized: bool) -> Iterator[None]:
    """Replace an architecture's norms and rotary embedding, and its attention's LoRA if the base is quantised."""
    name = _ARCHITECTURES.get(model_type)
    with contextlib.ExitStack() as stack:
        if name is not None:
            module = importlib.import_module(
                f"transformers.models.{model_type}.modeling_{model_type}"
            )
            norm, attention = (
                getattr(module, f"{name}{part}") for part in ("RMSNorm", "Attention")
            )
            replaced = [
                (norm, "forward", lambda _: kernels.rms_norm),
                (module, "apply_rotary_pos_emb", lambda _: kernels.rotary),
            ]
            if quantized:
                replaced.append((attention, "forward", _fusing))
            for owner, attribute, make in replaced:
                stack.enter_context(patches.replaced(owner, attribute, make))
        yield


def _fusing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return an attention's forward method that fuses the projections when it is first called."""

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **named: Any) -> Any:
        if not hasattr(self, _SEEN):
            setattr(self, _SEEN, True)
            fuse(self)
        return original(self, *args, **named)

    return forward
