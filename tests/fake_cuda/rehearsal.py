"""What a process of a rehearsal changes when it imports torch, or the predictor: imports nothing large itself.

The fake card has the kernels of a CPU: they have no workspaces of a card, and attention has one. Its
prediction is told so, since the rehearsal is of everything around kernels.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def nothing() -> None:
    pass


def when_imported(
    name: str, before: Callable[[], Any] = nothing, after: Callable[[ModuleType], Any] = lambda _: None
) -> None:
    """Call a function before a module is executed for the first time, and another one after it."""
    sys.meta_path.insert(0, _Finder(name, before, after))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as the others would; its loader calls both functions. To ask for the module is no import."""

    def __init__(self, name, before, after) -> None:
        self._name, self._before, self._after = name, before, after
        self._asked = False

    def find_spec(self, fullname, path, target=None):
        if fullname != self._name or self._asked:
            return None
        self._asked = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asked = False
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            sys.meta_path.remove(self)
            self._before()
            execute(module)
            self._after(module)

        spec.loader.exec_module = executed
        return spec


def begin() -> None:
    """Wait for the imports of torch and of the predictor in this process."""
    when_imported("torch", load_card, stand_in)
    when_imported("ftbench.predict.simulate.workspaces.workspaces", after=no_workspaces)
    when_imported("ftbench.predict.trace.attention", after=efficient_attention)


def sees_a_card() -> bool:
    """Return whether torch is to have a card; a worker's environment is set after its interpreter began."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def load_card() -> None:
    if sees_a_card():
        from tests.fake_cuda import build

        build.load(build.RUNNING)


def stand_in(torch: ModuleType) -> None:
    if sees_a_card():
        from tests.fake_cuda import card

        card.install(torch)


def no_workspaces(module: ModuleType) -> None:
    module.Workspaces.of = lambda *_: ((), ())


def efficient_attention(module: ModuleType) -> None:
    module.choose_attention = lambda *_, **__: "efficient"
