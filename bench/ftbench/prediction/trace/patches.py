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
import weakref
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.jit import _builtins
from torch.utils import _device

from ftbench.base.errors import PatchError
from ftbench.prediction.trace.shown_device import place

# The versions that the patches are tested with; the tests run under both versions of transformers.
KNOWN = {"torch": ("2.13.0",), "transformers": ("5.23.0", "4.51.3")}
TRACED_LIBRARIES = ("torch", "transformers", "accelerate")


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
    own = vars(owner).get(name)  # a class method is not what its class returns for it
    stand_in = make(original)
    # TorchScript knows torch's operators by their functions; modules that are first imported in a trace use it.
    scripted = require(_builtins, "_get_builtin_table")()
    if id(original) in scripted:
        scripted[id(stand_in)] = scripted[id(original)]
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if id(original) in scripted:
            del scripted[id(stand_in)]
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


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
    with (
        replaced(torch.utils, "swap_tensors", lambda _: _swap),
        replaced(FakeTensor, "data", _with_device),
    ):
        yield


def _with_device(original: Any) -> property:
    """Return `tensor.data`; assigning moves a fake tensor, whose device is an attribute, as it moves a real one."""

    def assign(tensor: FakeTensor, value: torch.Tensor) -> None:
        original.__set__(tensor, value)
        if isinstance(value, FakeTensor):
            tensor.fake_device = value.fake_device

    return property(original.__get__, assign)


# Hooks on a parameter's gradient: optimizers that step in the backward pass are made of them.
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _swap(first: torch.Tensor, second: torch.Tensor) -> None:
    first.__class__, second.__class__ = second.__class__, first.__class__
    of_first, of_second = first.__dict__, second.__dict__
    # A package's attributes of a parameter stay, as with `.data =`: bitsandbytes keeps scales in them.
    first.__dict__, second.__dict__ = of_first | of_second, of_first
    for slot in set(copyreg._slotnames(type(first))):  # type: ignore[attr-defined]
        values = [getattr(tensor, slot, None) for tensor in (first, second)]
        for tensor, value in zip((second, first), values, strict=True):
            if value is not None:
                setattr(tensor, slot, value)
    hooks = {name: getattr(first, name) for name in _HOOKS}
    torch._C._swap_tensor_impl(first, second)
    for name, of_first in hooks.items():  # they were those of the implementation that is gone
        if of_first is not None:
            setattr(first, name, of_first)
            setattr(second, name, None)


def default_device() -> torch.device | None:
    """Return the device that `with torch.device(...)` or `set_default_device` names; None without them."""
    stack = require(torch.overrides, "_get_current_function_mode_stack")()
    found = (mode.device for mode in stack if isinstance(mode, _device.DeviceContext))
    return next(found, None)


@contextlib.contextmanager
def constants_move(device: torch.device) -> Iterator[None]:
    """Let `torch.tensor(values, device=device)` end up on the traced device.

    torch makes a constant on the CPU and then moves it without the fake mode noticing. To a real tensor, `cpu:0`
    and `cpu` are the same, so the constant would stay on the host. Here the move is traced.
    """

    def make(original: Any) -> Any:
        def constant(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
            # `with torch.device(...)` names a device for `tensor` and `as_tensor`, too.
            default = None if original is new_tensor else default_device()
            device = default if device is None else device
            if device is None:
                return original(*args, **kwargs)
            named = torch.device(place(device, traced))
            if named != traced:
                return original(*args, device=named, **kwargs)
            if default is not None and not isinstance(args[0], torch.Tensor):
                kwargs["device"] = "cpu"
            return original(*args, **kwargs).to(traced)

        return constant

    traced, new_tensor = device, torch.Tensor.new_tensor
    # torch's list of functions that `with torch.device(...)` applies to is made once, and must have the originals.
    require(_device, "_device_constructors")()
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
def autocast_moves(*, host_apart: bool = False) -> Iterator[None]:
    """Let `torch.autocast("cuda")` be that of the traced device.

    Without a card it would only warn, and the step would be traced in float32. With `host_apart`,
    `torch.autocast("cpu")` is the host's, and does nothing to tensors on the card.
    """
    autocast = torch.amp.autocast_mode.autocast
    of_host: weakref.WeakSet[Any] = weakref.WeakSet()

    def make(original: Any) -> Any:
        def init(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
            if device_type == "cuda":
                device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
            elif device_type == "cpu" and host_apart:
                of_host.add(self)
            original(self, device_type, dtype, *args, **kwargs)

        return init

    def enter(original: Any) -> Any:
        return lambda self: self if self in of_host else original(self)

    def leave(original: Any) -> Any:
        return lambda self, *error: None if self in of_host else original(self, *error)

    with (
        replaced(autocast, "__init__", make),
        replaced(autocast, "__enter__", enter),
        replaced(autocast, "__exit__", leave),
    ):
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
