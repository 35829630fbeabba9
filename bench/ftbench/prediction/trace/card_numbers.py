"""Card numbers: a number names a card where torch takes one for a device, as in `model.to(rank)`.

A build of torch without CUDA refuses numbers when it reads the arguments, before anything of a trace sees them.
Only `torch.device(0)` itself stays refused there: it is a type in C++, and code compares with it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import torch
from torch.utils import _device

from ftbench.prediction.trace.patches import replaced, require

_DEVICE_MAP = (
    "_get_device_map"  # from transformers 4.51 on; before, a map of numbers stays refused by torch
)
_LIKE = ("empty", "full", "ones", "rand", "randint", "randn", "zeros")
_METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")


@contextlib.contextmanager
def numbers_are_cards() -> Iterator[None]:
    """Let torch's functions, `Module.to` and transformers' `device_map` take the number of a card."""
    with contextlib.ExitStack() as stack:
        for owner, name in _constructors():
            stack.enter_context(replaced(owner, name, _with_named_device))
        # `Module.to` reads its arguments with it.
        stack.enter_context(replaced(torch._C._nn, "_parse_to", _with_named_first))
        if "transformers" in sys.modules:  # which imports its parts late
            modeling = importlib.import_module("transformers.modeling_utils")
            if hasattr(modeling, _DEVICE_MAP):
                stack.enter_context(replaced(modeling, _DEVICE_MAP, _with_named_devices))
        yield


def named(device: Any) -> Any:
    """Return the name of a card for its number, also one of numpy's, else what was given."""
    if isinstance(device, bool) or not isinstance(device, Integral):
        return device
    return f"cuda:{int(device)}"


def _constructors() -> Iterator[tuple[Any, str]]:
    """Yield the functions that make a tensor on a device, and the methods."""
    known = {function.__name__ for function in require(_device, "_device_constructors")()}
    names = (*sorted(known), *(f"{kind}_like" for kind in _LIKE))
    yield from ((torch, name) for name in names if hasattr(torch, name))
    yield from ((torch.Tensor, name) for name in _METHODS)


def _with_named_device(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def make(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = named(kwargs["device"])
        return original(*args, **kwargs)

    return make


def _with_named_first(original: Callable[..., Any]) -> Callable[..., Any]:
    def parse(*args: Any, **kwargs: Any) -> Any:
        return _with_named_device(original)(*(named(one) for one in args[:1]), *args[1:], **kwargs)

    return parse


def _with_named_devices(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return transformers' function for a device map, with the names of the cards in what it returns."""

    def device_map(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if not isinstance(found, dict):
            return found
        return {part: named(device) for part, device in found.items()}

    return device_map
