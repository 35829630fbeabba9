"""Patches: every private name of torch and transformers that a trace replaces, in one place.

A trace runs the real libraries on tensors without data. If a library reads a value that such a tensor does
not have, or takes another path than on a card, a name is replaced while the trace runs.
Each name is looked up first; a missing one raises a `PatchError` that names it.
"""

from __future__ import annotations

import contextlib
import copyreg
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ftbench.base.errors import PatchError

# The versions that the patches are tested with; the tests run under both versions of transformers.
KNOWN = {"torch": ("2.13.0",), "transformers": ("5.23.0", "4.51.3")}
TRACED_LIBRARIES = ("torch", "transformers", "accelerate")

_CUDA_NAMES = frozenset({"device", "type"})


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the libraries that decide a trace, of those that are installed."""
    found = []
    for name in TRACED_LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace `owner.name` by `make(original)`; raises PatchError if the name does not exist."""
    original = require(owner, name)
    inherited = name not in vars(owner)  # as are Tensor's methods that are written in C
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, original)


def require(owner: Any, name: str) -> Any:
    """Return `owner.name`; raises PatchError if it does not exist."""
    try:
        return getattr(owner, name)
    except AttributeError:
        where = getattr(owner, "__name__", type(owner).__name__)
        known = "; ".join(f"{library} {', '.join(of)}" for library, of in KNOWN.items())
        present = ", ".join(" ".join(pair) for pair in library_versions())
        raise PatchError(
            "a name that prediction depends on is not in this version of the library",
            where=f"{where}.{name}",
            got=present,
            expected=f"a version that is known to work: {known}",
        ) from None


@contextlib.contextmanager
def cards_not_seeded() -> Iterator[None]:
    """Keep `torch.manual_seed` from seeding the generators of real cards as well."""

    def nothing(original: Any) -> Any:
        return lambda seed: None

    with (
        replaced(torch.cuda, "manual_seed", nothing),
        replaced(torch.cuda, "manual_seed_all", nothing),
    ):
        yield


@contextlib.contextmanager
def modules_move() -> Iterator[None]:
    """Let `module.to(device)` move a module of fake tensors, each parameter staying the same object.

    `torch.utils.swap_tensors` rejects a tensor that has weak references, and fake tensors
    keep a weak table of parameters. Swapping is still right: an optimizer that was
    made before the move must see the moved parameters, as it does with real ones (`.data =`).
    """
    with replaced(torch.utils, "swap_tensors", lambda _: _swap):
        yield


def _swap(first: torch.Tensor, second: torch.Tensor) -> None:
    for name in ("__class__", "__dict__"):
        of_first, of_second = getattr(first, name), getattr(second, name)
        setattr(first, name, of_second)
        setattr(second, name, of_first)
    for slot in set(copyreg._slotnames(type(first))):  # type: ignore[attr-defined]
        values = [getattr(tensor, slot, None) for tensor in (first, second)]
        for tensor, value in zip((second, first), values, strict=True):
            if value is not None:
                setattr(tensor, slot, value)
    torch._C._swap_tensor_impl(first, second)


@contextlib.contextmanager
def constants_move(device: torch.device) -> Iterator[None]:
    """Let `torch.tensor(values, device=device)` end up on the traced device.

    torch makes a constant on the CPU and then moves it without the fake mode noticing. To a real tensor, `cpu:0`
    and `cpu` are the same, so the constant would stay on the host. Here the move is traced.
    """

    def make(original: Any) -> Any:
        def constant(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
            if device is None or torch.device(device) != traced:
                return original(*args, device=device, **kwargs)
            return original(*args, **kwargs).to(traced)

        return constant

    traced = device
    with contextlib.ExitStack() as stack:
        for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
            stack.enter_context(replaced(owner, name, make))
        yield


@contextlib.contextmanager
def scalars_assigned_from_host(device: torch.device) -> Iterator[None]:
    """Let `tensor[...] = 0` take the number from the host if the tensor is on the traced device.

    torch/csrc/autograd/python_variable_indexing.cpp makes a tensor of the number: on the host if
    `is_cuda()`, else on the tensor's own device.
    """

    def make(original: Any) -> Any:
        def assign(tensor: torch.Tensor, index: Any, value: Any) -> None:
            number = isinstance(value, (bool, int, float))
            if number and isinstance(tensor, FakeTensor) and tensor.fake_device == device:
                value = torch.scalar_tensor(value, dtype=tensor.dtype, device="cpu")
            original(tensor, index, value)

        return assign

    with replaced(torch.Tensor, "__setitem__", make):
        yield


@contextlib.contextmanager
def autocast_moves() -> Iterator[None]:
    """Let `torch.autocast("cuda")` be that of the traced device.

    Without a card it would only warn, and the step would be traced in float32.
    """

    def make(original: Any) -> Any:
        def init(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
            if device_type == "cuda":
                device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
            original(self, device_type, dtype, *args, **kwargs)

        return init

    with replaced(torch.amp.autocast_mode.autocast, "__init__", make):
        yield


@contextlib.contextmanager
def multi_tensor_optimizers() -> Iterator[None]:
    """Let optimizers and gradient clipping choose as they do for parameters on a card.

    On CUDA a plain `AdamW(params)`, `SGD`, ... and `clip_grad_norm_` take the foreach implementation.
    They recognise a parameter on a card by its type and its device, which a fake parameter does not have.
    """
    from torch.nn.utils import clip_grad
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    with contextlib.ExitStack() as stack:
        for module in (_foreach_utils, optimizer):
            kinds = require(module, "_foreach_supported_types")
            if FakeTensor not in kinds:
                kinds.append(FakeTensor)
                stack.callback(kinds.remove, FakeTensor)
        name = "_get_foreach_kernels_supported_devices"
        for module in (_foreach_utils, optimizer):
            stack.enter_context(
                replaced(module, name, lambda original: lambda: [*original(), "cpu"])
            )
        require(clip_grad, "_has_foreach_support")  # reads the two lists above
        yield


@contextlib.contextmanager
def masks_as_with_data() -> Iterator[None]:
    """Let transformers build attention masks as it does for tensors that have data.

    Since 5.0 it takes a fake tensor as a sign of compilation, and then never leaves out a mask. With this
    patch it reads the values of the mask instead, which the tracer provides.
    """
    transformers = sys.modules.get("transformers")
    if transformers is None or int(transformers.__version__.split(".")[0]) < 5:
        yield  # before 5.0 it makes no difference
        return
    utils = importlib.import_module("transformers.utils.import_utils")
    with replaced(utils, "is_fake_tensor", lambda _: lambda tensor: False):
        yield


@contextlib.contextmanager
def on_a_card() -> Iterator[None]:
    """Make `tensor.device.type == "cuda"` true in the code of the loaded models.

    A few masks are built differently on a card (`_unmask_unattended`). The comparison is with a
    constant in the function's code, which is replaced; only functions that read `.device.type`
    and have that constant are changed.
    """
    changed: list[tuple[types.FunctionType, types.CodeType]] = []
    try:
        for function in _model_functions():
            code = function.__code__
            if set(code.co_names) >= _CUDA_NAMES:
                constants = tuple(_for_cuda(constant) for constant in code.co_consts)
                if constants != code.co_consts:
                    changed.append((function, code))
                    function.__code__ = code.replace(co_consts=constants)
        yield
    finally:
        for function, code in changed:
            function.__code__ = code


def _for_cuda(constant: Any) -> Any:
    """Return a constant of a comparison with "cuda" that is true for the device of a trace."""
    if constant == "cuda":
        return "cpu"
    if isinstance(constant, (tuple, frozenset)) and "cuda" in constant:
        return type(constant)(("cpu", *constant))
    return constant


def _model_functions() -> Iterator[types.FunctionType]:
    """Yield the functions and methods of transformers' loaded models and mask builders."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("transformers.model"):  # models.*, modeling_*
            continue
        for value in list(vars(module).values()):
            if isinstance(value, types.FunctionType):
                yield value
            elif isinstance(value, type) and value.__module__ == name:
                for member in vars(value).values():
                    function = getattr(member, "__func__", member)
                    if isinstance(function, types.FunctionType):
                        yield function
