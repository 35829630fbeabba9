"""The card as traced code asks for it: whether there is one, its compute capability, streams, memory in use.

Code that asks from Python gets the answers of a card. A question that only a particular card can answer (its free
memory) raises a PredictionError.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.card_numbers import numbers_are_cards
from ftbench.prediction.trace.card_tensors import Traced
from ftbench.prediction.trace.patches import replaced, require
from ftbench.prediction.trace.streams import Streams

# Code compares versions of CUDA with minimums, so a build without CUDA answers with a recent one.
_CUDA_VERSION = "13.0"
_RANDOM_STATE_BYTES = 16  # CUDAGeneratorImpl: seed and offset
_BFLOAT16 = (8, 0)
_CALLS = 8  # at most between a function that loads a model and an answer here


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
