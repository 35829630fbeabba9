"""The package flash-attn as transformers sees it in a trace: installed, with functions for tensors without data.

If batches have padding, transformers removes it before the kernel. How many tokens are left depends on the data: a
trace is of the most that there can be, all, or of the fewest, one per sequence (`Target.tokens`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Literal

import torch
from torch.nn import functional
from transformers import PreTrainedModel, modeling_flash_attention_utils

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.flash_attention import flash_attn_func, flash_attn_varlen_func

# "FlashAttention only supports Ampere GPUs or newer", flash_api.cpp 370.
FIRST_CAPABILITY = (8, 0)


def unpad_data(
    mask: torch.Tensor, *, tokens: Literal["most", "fewest"] = "most"
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return places of the real tokens, sums of the lengths, and the longest length.

    It makes the tensors of `_get_unpad_data` in modeling_flash_attention_utils.py of transformers, in their order.
    """
    lengths = mask.sum(dim=-1, dtype=torch.int32)
    kept = mask.numel() if tokens == "most" else mask.shape[0]
    places = mask.new_empty((kept, 1), dtype=torch.int64).flatten()
    lengths.max()
    sums = functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    return places, sums, mask.shape[-1]


@contextlib.contextmanager
def flash_attention_installed(
    capability: tuple[int, int], tokens: Literal["most", "fewest"] = "most"
) -> Iterator[None]:
    """Let transformers find our functions as those of flash-attn, on a card of this compute capability.

    Raises PredictionError for a card that the package does not support.
    """
    if capability < FIRST_CAPABILITY:
        raise PredictionError(
            "flash attention needs a card of compute capability 8.0 or later (Ampere)",
            where="attn_implementation",
            got=".".join(map(str, capability)),
        )
    utils = modeling_flash_attention_utils
    functions = (
        flash_attn_func,
        flash_attn_varlen_func,
        None,
        utils._pad_input,
        utils._unpad_input,
    )
    with contextlib.ExitStack() as stack:
        for owner, name, make in (
            (utils, "_lazy_imports", lambda _: lambda *args, **kwargs: functions),
            (utils, "_get_unpad_data", lambda _: functools.partial(unpad_data, tokens=tokens)),
            (utils, "_loaded_implementation", lambda _: None),
            *((utils, name, lambda original: original) for name in _LOADED),
            (PreTrainedModel, "_flash_attn_can_dispatch", lambda _: lambda *args, **kwargs: True),
            (PreTrainedModel, "_flash_attn_import_error", lambda _: lambda *args, **kwargs: None),
        ):
            stack.enter_context(patches.replaced(owner, name, make))
        matrix = patches.require(utils, "FLASH_ATTENTION_COMPATIBILITY_MATRIX")[2]
        check = matrix["general_availability_check"]
        matrix["general_availability_check"] = lambda: True
        stack.callback(matrix.__setitem__, "general_availability_check", check)
        yield


# What transformers keeps of the functions that it has loaded, restored at the end.
_LOADED = (
    "_flash_fn",
    "_flash_varlen_fn",
    "_flash_with_kvcache_fn",
    "_pad_fn",
    "_unpad_fn",
    "_process_flash_kwargs_fn",
    "_process_with_kvcache_kwargs_fn",
)
