"""Imports peft without bitsandbytes, which it imports for one of its helpers, whether it is used or not.

transformers imports peft with its Trainer. bitsandbytes then takes a second, and prints a line about its kernels.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

_NAME = "bitsandbytes"


def import_peft_alone() -> None:
    """Import peft, if it is installed, with a stand-in for bitsandbytes that imports it when it is used."""
    spec = importlib.util.find_spec(_NAME)
    known = {"peft", _NAME} & sys.modules.keys()
    if known or spec is None or importlib.util.find_spec("peft") is None:
        return
    stand_in = types.ModuleType(_NAME)
    stand_in.__spec__ = spec  # peft and transformers ask whether the package is there

    def attribute(name: str) -> Any:
        if name.startswith("__"):  # `inspect` looks at all modules
            raise AttributeError(name)
        if sys.modules.get(_NAME) is stand_in:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)

    stand_in.__getattr__ = attribute  # type: ignore[method-assign]
    sys.modules[_NAME] = stand_in
    try:
        importlib.import_module("peft")
    finally:
        if sys.modules.get(_NAME) is stand_in:
            del sys.modules[_NAME]
