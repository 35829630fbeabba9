"""The card as traced code sees it: devices of tensors, the state of `torch.cuda`, autocast.

Inside torch the traced device is `cpu:0` (`ftbench.predict.trace.tracer`). Code that asks from Python gets the
answers of a card, `cuda:0`: the device of a tensor and of its storage, `is_cuda`, whether a card is available, its
compute capability, whether autocast is on. What it passes back (`.to("cuda")`, `device=`) is `cpu:0` again.
A question that only a particular card can answer (its free memory) raises a PredictionError.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ftbench.base.errors import PredictionError
from ftbench.predict.trace.card_numbers import numbers_are_cards
from ftbench.predict.trace.patches import replaced, require
from ftbench.predict.trace.shown_device import SHOWN, place
from ftbench.predict.trace.streams import Stream, Streams

# Code compares versions of CUDA with minimums, so a build without CUDA answers with a recent one.
_CUDA_VERSION = "13.0"
_RANDOM_STATE_BYTES = 16  # CUDAGeneratorImpl: seed and offset
_BFLOAT16 = (8, 0)
_CALLS = (
    8  # between a function that loads a model and the answer: of this module, and of `torch.cuda`
)


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


@contextlib.contextmanager
def capability_known(capability: tuple[int, int]) -> Iterator[None]:
    """Let models ask for the compute capability of the traced card, where nothing else of it is asked for.

    A mixture of experts chooses its products by it.
    """
    with function_replaced(torch.cuda, "get_device_capability", _value(capability)):
        yield


@contextlib.contextmanager
def card_available(
    tracer: Traced, capability: tuple[int, int], asked: Callable[[], None]
) -> Iterator[None]:
    """Let `torch.cuda` and `torch.accelerator` answer as with one card; `asked` is called at each answer.

    Functions are changed in their code objects, so that `from torch.cuda import is_available` asks here too.
    """

    def noted(answer: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            asked()
            return answer(*args, **kwargs)

        return told

    def refusing(name: str) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            tracer.other_thread(name)
            if name in _FREE_MEMORY and _asked_by_loading():
                return _ENOUGH_MEMORY
            _unknown(name)

        return refuse

    with contextlib.ExitStack() as stack:
        for module, answers in _answers(tracer, capability).items():
            owner = importlib.import_module(module)
            for name, answer in answers.items():
                if hasattr(owner, name):
                    stack.enter_context(function_replaced(owner, name, noted(answer)))
        for module, name in _UNKNOWN:
            owner = importlib.import_module(module)
            if hasattr(owner, name):
                stack.enter_context(function_replaced(owner, name, refusing(f"{module}.{name}")))
        cuda = torch.version.cuda or _CUDA_VERSION
        stack.enter_context(replaced(torch.version, "cuda", lambda _: cuda))
        stack.enter_context(streams_of_trace(tracer.streams))
        stack.enter_context(_raw_streams_named())
        stack.enter_context(numbers_are_cards())
        yield


@contextlib.contextmanager
def _raw_streams_named() -> Iterator[None]:
    """Let a build without CUDA have the name of a function that bitsandbytes looks up in its import on a card.

    peft imports it, and transformers imports peft with its optimizers, perhaps first in a trace.
    """
    name = "_cuda_getCurrentRawStream"
    if hasattr(torch._C, name):
        yield
        return
    setattr(torch._C, name, _value(0))
    try:
        yield
    finally:
        delattr(torch._C, name)


@contextlib.contextmanager
def streams_of_trace(streams: Streams) -> Iterator[None]:
    """Let `torch.cuda.Stream()`, `torch.Stream()` and events of both be those of the trace."""
    stream, event = streams.new_class(), streams.new_event_class()
    with contextlib.ExitStack() as stack:
        for owner in (torch.cuda, torch):
            stack.enter_context(replaced(owner, "Stream", lambda _: stream))
            stack.enter_context(replaced(owner, "Event", lambda _: event))
        yield


Answers = Mapping[str, Callable[..., Any]]


def _value(answer: Any) -> Callable[..., Any]:
    return lambda *_, **__: answer


_nothing = _value(None)


def _answers(tracer: Traced, capability: tuple[int, int]) -> Mapping[str, Answers]:
    """Return the functions that have an answer, by module and name."""
    memory, streams = _memory_answers(tracer), tracer.streams
    waits = _waiting(streams)
    return {
        "torch.cuda": _cuda_answers(capability, streams),
        "torch.cuda.memory": memory,
        "torch.cuda.random": {
            "get_rng_state": _random_state,
            "get_rng_state_all": lambda: [_random_state()],
            "set_rng_state": _nothing,
            "set_rng_state_all": _nothing,
            "seed": _nothing,
            "seed_all": _nothing,
            "initial_seed": _value(0),
        },
        "torch.cuda.amp.common": {"amp_definitely_not_available": _value(False)},
        "torch.amp.autocast_mode": {
            "is_autocast_available": lambda device_type: device_type in ("cpu", "cuda")
        },
        "torch.backends.cuda": {"is_built": _value(True)},
        # Recurrent layers are traced as torch's own, not as cuDNN's.
        "torch.backends.cudnn": {"is_acceptable": _value(False)},
        "torch.accelerator": {
            "is_available": _value(True),
            "current_accelerator": _value(torch.device("cuda")),
            "device_count": _value(1),
            "current_device_index": _value(0),
            "set_device_index": _nothing,
            "synchronize": waits,
            "current_stream": streams.current_stream,
            "set_stream": streams.set_stream,
        },
        "torch.accelerator.memory": memory,
        "torch._C": {"_get_accelerator": _value(torch.device("cuda"))},
    }


def _waiting(streams: Streams) -> Callable[..., None]:
    return lambda *_, **__: streams.host_waits()


def _cuda_answers(capability: tuple[int, int], streams: Streams) -> Answers:
    """Return the answers of `torch.cuda` on a card of this compute capability."""
    major, minor = capability
    properties = Properties(major, minor)
    return {
        "is_available": _value(True),
        "is_initialized": _value(True),
        "init": _nothing,
        "device_count": _value(1),
        "current_device": _value(0),
        "set_device": _nothing,
        "_exchange_device": _value(0),
        "_maybe_exchange_device": _value(0),
        "get_device_name": _value(properties.name),
        "get_device_capability": _value(capability),
        "get_device_properties": _value(properties),
        "get_arch_list": _value([f"sm_{major}{minor}"]),
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or capability >= _BFLOAT16
        ),
        "is_tf32_supported": _value(capability >= _BFLOAT16),
        "is_current_stream_capturing": _value(False),
        "synchronize": _waiting(streams),
        "ipc_collect": _nothing,
        "current_stream": streams.current_stream,
        "default_stream": _value(streams.default),
        "set_stream": streams.set_stream,
    }


def _memory_answers(tracer: Traced) -> Answers:
    """Return what is known of the card's memory: the live bytes of the trace."""

    def live(*_: Any, **__: Any) -> int:
        return tracer.live_bytes

    def peak(*_: Any, **__: Any) -> int:
        return tracer.peak_bytes

    def reset(*_: Any, **__: Any) -> None:
        tracer.reset_peak()

    return {
        "empty_cache": _nothing,
        "memory_allocated": live,
        "memory_reserved": live,
        "max_memory_allocated": peak,
        "max_memory_reserved": peak,
        "reset_peak_memory_stats": reset,
        "reset_accumulated_memory_stats": _nothing,
    }


def _random_state(*_: Any, **__: Any) -> torch.Tensor:
    return torch.zeros(_RANDOM_STATE_BYTES, dtype=torch.uint8, device="cpu")


# Only a particular card, or a real process on it, can answer these.
_UNKNOWN = (
    ("torch.cuda", "_lazy_init"),  # all else that needs the driver
    ("torch.cuda", "get_stream_from_external"),
    ("torch.cuda", "utilization"),
    ("torch.cuda.memory", "mem_get_info"),
    ("torch.cuda.memory", "memory_stats"),
    ("torch.cuda.memory", "memory_snapshot"),
    ("torch.cuda.memory", "memory_summary"),
    ("torch.cuda.memory", "caching_allocator_alloc"),
    ("torch.cuda.memory", "set_per_process_memory_fraction"),
    ("torch.accelerator.memory", "memory_stats"),
    ("torch.accelerator.memory", "get_memory_info"),
)


# Loading a model asks how much is free: transformers, for the block that it allocates and frees before (the
# weights are then put there), and accelerate, for `device_map="auto"`. A trace is of a card that has room for all.
_FREE_MEMORY = ("torch.cuda.memory.mem_get_info", "torch.accelerator.memory.get_memory_info")
_LOADING = ("caching_allocator_warmup", "get_max_memory")
_ENOUGH_MEMORY = (1 << 50, 1 << 50)  # free and in all


def _asked_by_loading() -> bool:
    """Return whether one of the functions that load a model asks, a few calls up."""
    frame: types.FrameType | None = sys._getframe(1)
    for _ in range(_CALLS):
        if frame is None:
            return False
        if frame.f_code.co_name in _LOADING:
            return True
        frame = frame.f_back
    return False


def _unknown(name: str) -> NoReturn:
    raise PredictionError(
        "the code asks for something that only a particular card can answer",
        where=name,
        hint="steps are traced without a card: leave this out of the steps that are tested",
    )


def function_replaced(owner: Any, name: str, answer: Callable[..., Any]) -> Any:
    """Return a context in which a function gives another's answers, also where it was imported by name."""
    function = require(owner, name)
    if isinstance(function, types.FunctionType) and not function.__code__.co_freevars:
        return _code_replaced(function, answer)
    return replaced(owner, name, lambda _: answer)


@contextlib.contextmanager
def _code_replaced(function: types.FunctionType, answer: Callable[..., Any]) -> Iterator[None]:
    """Let a function return another's answers, for every name that it was imported under."""
    own = function.__code__
    constants = tuple(answer if c == _ANSWER else c for c in _template.__code__.co_consts)
    function.__code__ = _template.__code__.replace(co_consts=constants)
    try:
        yield
    finally:
        function.__code__ = own


_ANSWER = "the answer"


def _template(*args, **kwargs):  # type: ignore[no-untyped-def]
    answer = "the answer"  # a constant that is exchanged
    return answer(*args, **kwargs)  # type: ignore[operator]


class Properties:
    """The properties of the traced card that are known; others raise PredictionError."""

    def __init__(self, major: int, minor: int) -> None:
        self.major, self.minor = major, minor
        self.name = f"a card of compute capability {major}.{minor}"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _unknown(f"torch.cuda.get_device_properties().{name}")
