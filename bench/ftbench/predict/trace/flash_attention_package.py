"""flash-attn as transformers finds it: the functions of `flash_attention`, in place of the package's own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Literal

from transformers import PreTrainedModel, modeling_flash_attention_utils

from ftbench.base.errors import PredictionError
from ftbench.predict.trace import patches
from ftbench.predict.trace.flash_attention import (
    FIRST_CAPABILITY,
    flash_attn_func,
    flash_attn_varlen_func,
    unpad_data,
)


@contextlib.contextmanager
def flash_attention_installed(
    capability: tuple[int, int], tokens: Literal["most", "fewest"] = "most"
) -> Iterator[None]:
    """Let transformers find the functions of `flash_attention` for flash-attn, on a card of this capability.

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
