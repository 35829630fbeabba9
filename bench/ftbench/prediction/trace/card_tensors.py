"""The card's tensors as traced code sees them: on `cuda:0`, and autocast is CUDA's.

Inside torch they are on `cpu:0` (`ftbench.prediction.trace.tracer_mode`). What code passes back (`.to("cuda")`,
`device=`) is `cpu:0` again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ftbench.prediction.trace.patches import replaced
from ftbench.prediction.trace.shown_device import SHOWN, place
from ftbench.prediction.trace.streams import Stream, Streams


class Traced(Protocol):
    """The part of a tracer that is asked here."""

    @property
    def device(self) -> torch.device:
        """Return the device whose storages are recorded."""

    @property
    def inside_operator(self) -> bool:
        """Return whether torch's own code for tensors without data is running."""

    @property
    def live_bytes(self) -> int:
        """Return the live bytes of the trace so far."""

    @property
    def peak_bytes(self) -> int:
        """Return the largest live bytes of the trace so far."""

    def reset_peak(self) -> None:
        """Count the largest live bytes from here on."""

    @property
    def streams(self) -> Streams:
        """Return the streams of the card."""

    def used_on(self, tensor: torch.Tensor, stream: Stream) -> None:
        """Note `tensor.record_stream(stream)`."""

    def other_thread(self, operator: str) -> None:
        """Raise PredictionError in every thread but the trace's own."""


@contextlib.contextmanager
def tensors_on_card(tracer: Traced) -> Iterator[None]:
    """Let tensors on the traced device say that they are on `cuda:0`, and move there by that name."""

    def flag(shown: bool) -> Callable[[Any], property]:
        return lambda original: property(
            lambda tensor: shown if _shown(tracer, tensor) else original.__get__(tensor)
        )

    def device(original: Any) -> property:
        def read(tensor: FakeTensor) -> torch.device:
            return SHOWN if _shown(tracer, tensor) else original.fget(tensor)

        return property(read, original.fset)

    with contextlib.ExitStack() as stack:
        for owner, name, make in (
            (FakeTensor, "device", device),
            (FakeTensor, "is_cuda", flag(shown=True)),
            (FakeTensor, "is_cpu", flag(shown=False)),
            (torch.Tensor, "to", lambda original: _moving(original, tracer.device)),
            (torch.Tensor, "cuda", lambda _: _to_card),
            (
                torch.Tensor,
                "record_stream",
                lambda _: lambda one, stream: tracer.used_on(one, stream),
            ),
            (torch.Tensor, "type", lambda original: _typed(original, tracer)),
            # Pinned memory is the host's.
            (torch.Tensor, "pin_memory", lambda _: lambda tensor, *_: tensor),
            (torch, "Generator", lambda original: _generator(original, tracer.device)),
        ):
            stack.enter_context(replaced(owner, name, make))
        yield


def _shown(tracer: Traced, tensor: FakeTensor) -> bool:
    """Return whether traced code is asking about a tensor on the traced device."""
    return not tracer.inside_operator and tensor.fake_device == tracer.device


def _moving(original: Any, traced: torch.device) -> Any:
    """Return `Tensor.to` with the traced device in place of the card."""

    @functools.wraps(original)
    def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if "device" in kwargs:
            kwargs["device"] = place(kwargs["device"], traced)
        moved: torch.Tensor = original(tensor, *_first_placed(args, traced), **kwargs)
        return moved

    return to


def _to_card(
    tensor: torch.Tensor,
    device: Any = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> torch.Tensor:
    return tensor.to(SHOWN if device is None else device, memory_format=memory_format)


def _typed(original: Any, tracer: Traced) -> Any:
    """Return `Tensor.type`, whose names say where a tensor is."""

    def read(tensor: torch.Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if dtype is not None:
            return _as_type(original, tensor, dtype, *args, **kwargs)
        name: str = original(tensor)
        shown = isinstance(tensor, FakeTensor) and _shown(tracer, tensor)
        return name.replace("torch.", "torch.cuda.") if shown else name

    return read


def _first_placed(args: tuple[Any, ...], traced: torch.device) -> tuple[Any, ...]:
    return (place(args[0], traced), *args[1:]) if args else args


def _as_type(original: Any, tensor: torch.Tensor, dtype: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `tensor.type("torch.cuda.FloatTensor")`: a copy on the card, in that element type."""
    name = dtype if isinstance(dtype, str) else ""
    if not name.startswith("torch.cuda."):
        return original(tensor, dtype, *args, **kwargs)
    return original(tensor.to(SHOWN), name.replace("torch.cuda.", "torch."), *args, **kwargs)


def _generator(original: Any, traced: torch.device) -> type[torch.Generator]:
    """Return a class of generators that are on the host: they make no memory on a card."""

    class Generator(original):
        def __new__(cls, device: Any = "cpu") -> Any:
            return original.__new__(cls, "cpu" if place(device, traced) == traced else device)

    return Generator


@contextlib.contextmanager
def autocast_on_card() -> Iterator[None]:
    """Let `torch.is_autocast_enabled("cuda")` and its like be about the traced device."""

    def of_card(original: Any) -> Any:
        # Without an argument, torch means CUDA.
        def answer(device_type: str = "cuda", *args: Any) -> Any:
            return original("cpu" if device_type == "cuda" else device_type, *args)

        return answer

    def dtype(original: Any) -> Any:
        def answer(device_type: str) -> torch.dtype:
            on = device_type == "cuda" and torch.is_autocast_enabled("cpu")
            found: torch.dtype = original("cpu" if on else device_type)
            return found

        return answer

    with contextlib.ExitStack() as stack:
        for name in ("is_autocast_enabled", "set_autocast_enabled", "set_autocast_dtype"):
            stack.enter_context(replaced(torch, name, of_card))
        stack.enter_context(replaced(torch, "get_autocast_dtype", dtype))
        gpu_dtype = lambda _: lambda: torch.get_autocast_dtype("cuda")  # noqa: E731
        stack.enter_context(replaced(torch, "get_autocast_gpu_dtype", gpu_dtype))
        yield
