"""The package Liger-Kernel in a trace: its own Python runs, without the launches of its Triton kernels.

Every buffer of Liger's operators is allocated in Python, and its kernels write to given ones. So a trace imports
the package anew beside a stand-in for Triton, whose kernels do nothing, and drops both afterwards. What the
formulas come to, from liger-kernel 0.8.5 (below liger_kernel/; R rows of width H, V the vocabulary):

    fused linear cross entropy   chunks of C rows, C = next power of two of ceil(R / ceil(V / H)), at most R;
                                 logits [C, V] of one chunk, gradients of input [R, H] and weight [V, H], losses
                                 [R] float32 (ops/fused_linear_cross_entropy.py 95-180)
    RMS norm                     output [R, H], reciprocal deviations [R] float32; backward: gradients of the weight
                                 per multiprocessor [M, H] float32, of the input in place (ops/rms_norm.py 462-560)
    rotary embedding             in place (ops/rope.py)
    SwiGLU                       output [R, I]; backward in place (ops/swiglu.py)

M is the number of multiprocessors of the card.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.target import Target
from ftbench.prediction.trace.tracer_mode import Tracer

_PACKAGES = ("liger_kernel", "triton")
# The oldest version of Triton with all names that Liger asks for.
_TRITON_VERSION = "3.5.0"


def require_liger(where: str, got: str) -> None:
    """Raise PredictionError if Liger-Kernel is not installed."""
    if importlib.util.find_spec("liger_kernel") is None:
        raise PredictionError(
            "this needs the package liger-kernel, which is not installed; a card and Triton are not needed",
            where=where,
            got=got,
            hint="python -m pip install --no-deps liger-kernel",
        )


@contextlib.contextmanager
def liger_on_card(tracer: Tracer, target: Target) -> Iterator[None]:
    """Let Liger-Kernel run in a trace as on a card, its kernels left out; what it replaces is restored."""
    properties = SimpleNamespace(multi_processor_count=target.multiprocessors)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_imported_anew())
        with patches.replaced(torch.cuda, "is_available", lambda _: lambda: True):
            liger = importlib.import_module("liger_kernel.transformers")
            apply = liger._apply_liger_kernel_to_instance
        restored = stack.enter_context(_restored())
        _read_no_numbers(tracer, stack)
        for owner, name, make in (
            (torch.cuda, "get_device_properties", lambda _: lambda *args: properties),
            (torch.cuda, "device", lambda _: lambda *args: contextlib.nullcontext()),
            (liger, "_apply_liger_kernel_to_instance", lambda _: restored(apply)),
        ):
            stack.enter_context(patches.replaced(owner, name, make))
        yield


def _read_no_numbers(tracer: Tracer, stack: contextlib.ExitStack) -> None:
    """Let the losses read numbers of which no size depends.

    Forward they count labels, in which batches differ. Backward they ask whether the gradient is 1, as it is
    without scaling and accumulation; else gradients are multiplied in place.
    """

    def forward(original: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            with tracer.numbers_without_effect():
                return original(*args, **kwargs)

        return functools.wraps(original)(counting)

    def backward(original: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*args: Any, **kwargs: Any) -> Any:
            with patches.replaced(torch, "equal", lambda _: lambda *tensors: True):
                return original(*args, **kwargs)

        return functools.wraps(original)(asking)

    for name in ("cross_entropy", "fused_linear_cross_entropy"):
        module = importlib.import_module(f"liger_kernel.ops.{name}")
        for way, make in (("forward", forward), ("backward", backward)):
            stack.enter_context(patches.replaced(module, f"{name}_{way}", make))


@contextlib.contextmanager
def _imported_anew() -> Iterator[None]:
    """Import Liger beside the stand-in for Triton while the context lasts; then put back what was imported."""
    before = {name: module for name, module in sys.modules.items() if _ours(name)}
    for name in before:
        del sys.modules[name]
    finder = _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _ours(module: str) -> bool:
    return module.partition(".")[0] in _PACKAGES


@contextlib.contextmanager
def _restored() -> Iterator[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Yield a function that has another note what it replaces in transformers, which is restored at the end."""
    before: dict[Any, dict[str, Any]] = {}
    loss = torch.nn.functional.cross_entropy

    def noting(apply: Callable[..., Any]) -> Callable[..., Any]:
        def applied(*args: Any, **kwargs: Any) -> Any:
            for owner in _replaceable():
                before.setdefault(owner, dict(vars(owner)))
            apply(*args, **kwargs)
            _require_language_model(kwargs["model"])

        return applied

    try:
        yield noting
    finally:
        torch.nn.functional.cross_entropy = loss
        for owner, names in before.items():
            for name, value in names.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)


def _require_language_model(model: torch.nn.Module) -> None:
    """Raise PredictionError if Liger gave the forward pass of a language model to another model.

    `apply_liger_kernel_to_llama` and others do so to any model of the architecture (transformers/monkey_patch.py
    304), which then fails in its first step.
    """
    if "forward" in vars(model) and not hasattr(model, "lm_head"):
        raise PredictionError(
            f"Liger replaces the forward pass of {type(model).__name__} by that of a language model, which fails",
            where="training.liger_kernel_config",
            expected="{ fused_linear_cross_entropy = false }",
        )


def _replaceable() -> Iterator[Any]:
    """Yield the modules of transformers' models, and their classes."""
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.models.") and isinstance(module, types.ModuleType):
            yield module
            yield from (
                value
                for value in vars(module).values()
                if isinstance(value, type) and value.__module__ == name
            )


class _Constant:
    """A constant of a kernel, `triton.language.constexpr`, whose value Python reads as well."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Nothing:
    """Whatever code asks of Triton beside kernels: types, operators, settings. Nothing may depend on it."""

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise PredictionError(
            "Liger-Kernel asks Triton for a value that its stand-in does not have"
        )

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Nothing()

    def __getitem__(self, key: Any) -> Any:
        return _Nothing()


class _Kernel:
    """A kernel whose launch does nothing: its buffers are made by who launches it."""

    def __init__(self, function: Any) -> None:
        self.fn = getattr(function, "fn", function)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def _kernel(function: Any = None, **_: Any) -> Any:
    """Return a kernel of a function: `triton.jit`, with and without arguments."""
    return _kernel if function is None else _Kernel(function)


def _same_kernel(*_: Any, **__: Any) -> Any:
    """Return what leaves a kernel as it is: `triton.autotune` and `triton.heuristics`."""
    return lambda kernel: kernel


_NAMES: dict[str, dict[str, Any]] = {
    "triton": {
        "__version__": _TRITON_VERSION,
        "jit": _kernel,
        "autotune": _same_kernel,
        "heuristics": _same_kernel,
        "cdiv": lambda value, unit: -(-value // unit),
        "next_power_of_2": lambda value: 1 << max(int(value) - 1, 0).bit_length(),
    },
    "triton.language": {"constexpr": _Constant},
}


class _StandIn(types.ModuleType):
    """A module of Triton's that has every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package: it has modules of its own

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for each module of Triton's."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """Return how a module is made, if it is one of Triton's."""
        if fullname.partition(".")[0] != "triton":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> types.ModuleType:
        """Return the stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Give a module the names that Liger uses outside of kernels."""
        vars(module).update(_NAMES.get(module.__name__, {}))
