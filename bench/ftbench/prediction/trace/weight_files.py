"""Weight files: what a trace reads of one is a tensor without data, on the device that it is read to.

A file in the format of safetensors says in its header which shapes and types it has. Nothing else is read of it, so
`from_pretrained` in a factory makes the allocations of a card at the cost of a model with random weights.
`torch.load` makes tensors without data itself; where they are, and that they take memory there, is added here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import safetensors
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.weak import WeakIdKeyDictionary

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.patches import replaced
from ftbench.prediction.trace.shown_device import place

# transformers reads in four threads, unless this says otherwise; a trace watches one.
_ONE_THREAD = "HF_DEACTIVATE_ASYNC_LOAD"
# The names of types in a header: https://github.com/huggingface/safetensors (safetensors/src/tensor.rs, `Dtype`).
_TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}


# bitsandbytes keeps the sizes of a quantized weight as a text, in a tensor of bytes with this in its name.
_TEXT = ".quant_state.bitsandbytes__"
_texts: WeakIdKeyDictionary = (
    WeakIdKeyDictionary()
)  # a tensor without data -> the text that it is in the file
_OF_TORCH = ("pt", "torch", "pytorch")  # the names of its framework; others read arrays, with data
_safe_open = safetensors.safe_open
_traces = 0  # that are running


class Reader(Protocol):
    """The part of a tracer that is told of what is read."""

    @property
    def device(self) -> torch.device:
        """Return the device whose storages are recorded."""

    def loaded(self, tensor: torch.Tensor) -> None:
        """Record the storage of a tensor that was read from a file, if it is on the traced device."""


@contextlib.contextmanager
def weight_files_without_data(tracer: Reader) -> Iterator[None]:
    """Let files of weights be opened and not read while the context lasts: safetensors' and those of `torch.save`.

    `safetensors.safe_open` is replaced under every name it has.
    """
    global _traces
    with contextlib.ExitStack() as stack:
        for module in _with_name("safe_open", _safe_open):
            stack.enter_context(replaced(module, "safe_open", lambda _: _open_file))
        stack.enter_context(replaced(torch.Tensor, "to", _with_its_text))
        stack.enter_context(
            replaced(torch._utils, "_restore_device_fake_mode", lambda _: _placing(tracer))
        )
        stack.enter_context(_variable(_ONE_THREAD, "1"))
        _traces += 1
        try:
            yield
        finally:
            _traces -= 1


def _placing(tracer: Reader) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what puts a tensor of `torch.load` on the device that it is loaded to."""

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        storage: Any = tensor.untyped_storage()
        if storage._fake_device is not None and isinstance(tensor, FakeTensor):
            tensor.fake_device = torch.device(place(_location(storage), tracer.device))
            tracer.loaded(tensor)
        return tensor

    return placed


def _location(storage: Any) -> Any:
    """Return where `torch.load` puts a storage, by its argument `map_location`; raises PredictionError."""
    saved = storage._fake_device
    asked = torch.serialization._serialization_tls.map_location
    if asked is None:
        return saved
    if isinstance(asked, dict):
        return asked.get(saved, saved)
    if not callable(asked):
        return asked
    found = asked(
        storage, saved
    )  # it moves the storage, leaves it on the host, or leaves it to torch
    if found is not None and found is not storage:
        raise PredictionError(
            "a function that moves what it is given cannot be traced",
            where="torch.load(map_location=...)",
            expected="the name of a device, or a table of names",
        )
    return saved if found is None else "cpu"


def _open_file(filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any) -> Any:
    """Open a file. A module that is first imported in a trace keeps this function beyond it."""
    if not _traces or framework not in _OF_TORCH:
        return _safe_open(filename, framework, device, **options)
    return _File(_safe_open(filename, "np"), device)  # "np" makes no storage of torch


class _File:
    """An open file, as `safetensors.safe_open` returns it."""

    def __init__(self, file: Any, device: Any) -> None:
        self._file = file
        self._device = device

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    def keys(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._file.keys())

    def offset_keys(self) -> list[str]:
        """Return the names of the tensors in their order in the file."""
        return list(self._file.offset_keys())

    def metadata(self) -> dict[str, str]:
        """Return the texts beside the tensors."""
        return dict(self._file.metadata() or {})

    def get_slice(self, name: str) -> _Slice:
        """Return a tensor that is not read yet."""
        return _Slice(name, self._file.get_slice(name), self._device)

    def get_tensor(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self.get_slice(name)[...]

    def get_tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name."""
        return {name: self.get_tensor(name) for name in self.keys()}


class _Slice:
    """A tensor of a file, or what an index takes of it, before it is read."""

    def __init__(self, name: str, of_file: Any, device: Any) -> None:
        self._name = name
        self._of_file = of_file
        self._device = device

    def get_shape(self) -> list[int]:
        """Return the shape."""
        return list(self._of_file.get_shape())

    def get_dtype(self) -> str:
        """Return the name of the type."""
        return str(self._of_file.get_dtype())

    def __getitem__(self, index: Any) -> torch.Tensor:
        # As safetensors: the host reads what the index takes, and moves that.
        whole = torch.empty(self.get_shape(), dtype=_TYPES[self.get_dtype()], device="cpu")
        taken = whole if index is ... else whole[index].clone()
        if _TEXT in self._name:
            _texts[taken] = bytes(self._of_file[...])
        return taken.to(self._device)


def text_of(tensor: torch.Tensor) -> bytes:
    """Return what a file has in a tensor that is a text; raises PredictionError for one that is not from a file."""
    try:
        return _texts[tensor]
    except KeyError:
        raise PredictionError("a text in a tensor was not read from a file in the trace") from None


def _with_its_text(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(original)
    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        moved = original(tensor, *args, **kwargs)
        if _texts and tensor in _texts:
            _texts[moved] = _texts[tensor]
        return moved

    return to


def _with_name(name: str, value: object) -> list[types.ModuleType]:
    """Return the imported modules that have this value under this name."""
    modules = [module for module in sys.modules.values() if isinstance(module, types.ModuleType)]
    return [module for module in modules if vars(module).get(name) is value]


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
