"""What a process of a rehearsal changes when it imports torch, or the predictor: imports nothing large itself.

The fake card has the kernels of a CPU: they have no workspaces of a card, and attention has one. Its
prediction is told so, since the rehearsal is of everything around kernels.
"""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def nothing() -> None:
    pass


def when_imported(
    name: str,
    before: Callable[[], Any] = nothing,
    after: Callable[[ModuleType], Any] = lambda _: None,
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


# Distributions that a rehearsal is to miss, by commas.
MISSING = "FTBENCH_REHEARSAL_MISSING"


class _Without:
    """A finder of modules that does not find those of some packages."""

    def __init__(self, finder: Any, names: list[str]) -> None:
        self._finder, self._names = finder, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in self._names:
            return None
        return self._finder.find_spec(fullname, path, target)


def hide(names: list[str]) -> None:
    """Have this process miss packages, also for those who ask for their version."""
    sys.meta_path[:] = [_Without(finder, names) for finder in sys.meta_path]
    found = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    importlib.metadata.distribution = distribution


def begin() -> None:
    """Wait for the imports of torch and of the predictor in this process."""
    if names := os.environ.get(MISSING):
        hide(names.split(","))
    when_imported("torch", load_card, stand_in)
    when_imported("ftbench.prediction.simulate.workspaces.workspaces", after=no_workspaces)
    when_imported("ftbench.prediction.trace.attention", after=efficient_attention)
    when_imported("ftbench.worker.calibrate.memory_kernels", after=small_kernels)
    when_imported("ftbench.worker.calibrate.products", after=small_kernels)
    when_imported("ftbench.worker.calibrate.card", after=short_load)
    when_imported("ftbench.worker.calibrate.timing", after=short_load)


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


def small_kernels(module: ModuleType) -> None:
    """Calibrate with sizes that a CPU has done in no time, also in half types."""
    for name, small in {"_ELEMENTS": [4**4, 4**6, 4**8], "_MOST_FLOPS": 1e8}.items():
        if hasattr(module, name):
            getattr(module, name)["cuda"] = small


def short_load(module: ModuleType) -> None:
    module._LOAD, module._LOAD_S, module._BLOCKER = 512, 0.2, 64
