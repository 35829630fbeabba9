"""The Python half of a fake card that trains: what torch's CUDA build answers in `torch.cuda`.

`running_cuda.cpp` reports each allocation; torch's caching allocator is simulated here, with its limit, its figures
and the history that a snapshot has. A card of the catalogue, whose memory the NVML stub has.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pickle
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ftbench.base.units import MIB
from ftbench.prediction.simulate.allocator import SimulatedOutOfMemory
from tests.fake_cuda import build
from tests.fake_cuda.environment import UUID
from tests.simulated_snapshot import Recorder, snapshot_of

NAME, CAPABILITY, MULTIPROCESSORS = "NVIDIA L4", (8, 9), 58
TOTAL = 1 << 34  # as `nvml_stub.c` has it
EFFICIENT = 2  # of at::SDPBackend
CONTEXT = 300 * MIB

# In a rehearsal of a fault: this many bytes are added to each request of this size, in the form `SIZE+BYTES`.
FAULT = "FTBENCH_REHEARSAL_FAULT"

_ON_MALLOC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64)
_ON_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Card:
    """The allocator of the fake card in this process."""

    def __init__(self) -> None:
        self.recorder = Recorder(capacity=TOTAL - CONTEXT)
        self.recording = False
        self._lock = threading.RLock()  # autograd has a thread of its own
        self._fault = tuple(map(int, os.environ.get(FAULT, "0+0").split("+")))
        self._shown = -1
        self._malloc, self._free = _ON_MALLOC(self._allocated), _ON_FREE(self._freed)
        self._library = library = build.loaded(build.RUNNING)
        library.fake_cuda_choose_attention(EFFICIENT)
        library.fake_cuda_report(self._malloc, self._free)
        atexit.register(library.fake_cuda_report, _ON_MALLOC(), _ON_FREE())

    @property
    def allocator(self):
        return self.recorder.allocator

    def _allocated(self, pointer: int, nbytes: int) -> int:
        size, more = self._fault
        nbytes += more if nbytes == size else 0
        with self._lock:
            try:
                frames = _frames() if self.recording else []
                self.recorder.alloc(pointer, nbytes, frames=frames)
            except SimulatedOutOfMemory as error:
                self.recorder.out_of_memory(nbytes, error.capacity - error.reserved, "")
                return 0
            self._tell_driver()
        return 1

    def _freed(self, pointer: int) -> None:
        with self._lock:
            self.recorder.free(pointer)

    def _tell_driver(self) -> None:
        """Write what NVML is to say of this process: its reserved memory and a context."""
        if self.allocator.reserved == self._shown or "STUB_SCRIPT" not in os.environ:
            return
        self._shown = self.allocator.reserved
        used = self._shown + CONTEXT
        file = Path(tempfile.gettempdir()) / f"fake-card-{os.getpid()}.nvml"
        file.write_text(
            f"card {UUID}\nframe used={used} processes=self:{used} energy=0 reasons=0\n"
        )
        os.environ["STUB_SCRIPT"] = str(file)

    def limit(self, nbytes: int) -> None:
        self.allocator._capacity = nbytes

    def stats(self) -> dict[str, int]:
        self._library.fake_cuda_report_releases()
        one = self.allocator
        found = {"num_alloc_retries": one.retries, "num_ooms": 0}
        for name in ("requested", "allocated", "reserved"):
            found[f"{name}_bytes.all.current"] = getattr(one, name)
            found[f"{name}_bytes.all.peak"] = getattr(one, f"peak_{name}")
        found["active_bytes.all.current"] = one.allocated
        found["active_bytes.all.peak"] = one.peak_allocated
        return found

    def reset_peaks(self) -> None:
        one = self.allocator
        one.peak_requested, one.peak_allocated = one.requested, one.allocated
        one.peak_reserved = one.reserved


def _frames() -> list[dict[str, Any]]:
    """Return the Python stack of this thread as torch records it, innermost first; none below autograd's thread."""
    found, frame = [], sys._getframe(1).f_back
    while frame is not None:
        code = frame.f_code
        found.append({"name": code.co_name, "filename": code.co_filename, "line": frame.f_lineno})
        frame = frame.f_back
    return found


class Event:
    """An event of a device that has done its work at once, but says so only when it is waited for."""

    def __init__(self, enable_timing=False, blocking=False, interprocess=False):
        self._at = 0.0

    def record(self, stream=None):
        self._at = time.perf_counter()

    def wait(self, stream=None):
        pass

    def synchronize(self):
        pass

    def query(self):
        return False

    def elapsed_time(self, later):
        return (later._at - self._at) * 1e3


class Stream:
    """The one stream."""

    cuda_stream = 0
    device_index = 0

    def __init__(self, *_, **__):
        pass

    def wait_stream(self, stream):
        pass

    def wait_event(self, event):
        pass

    def record_event(self, event=None):
        event = event or Event()
        event.record()
        return event

    def synchronize(self):
        pass

    def query(self):
        return True


class Within(contextlib.nullcontext):
    """The context of the one device or stream; torch asks for these classes by name."""

    def __init__(self, device_or_stream=None):
        super().__init__()


def install(torch: ModuleType) -> None:
    """Replace what a CPU build has in `torch.cuda`."""
    card, cuda = Card(), torch.cuda
    stream = Stream()
    properties = SimpleNamespace(
        name=NAME,
        major=CAPABILITY[0],
        minor=CAPABILITY[1],
        total_memory=TOTAL,
        multi_processor_count=MULTIPROCESSORS,
        uuid=UUID,
    )
    answers = {
        "_lazy_init": None,
        "init": None,
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "synchronize": None,
        "get_device_properties": properties,
        "get_device_capability": CAPABILITY,
        "get_device_name": NAME,
        "is_bf16_supported": True,
        "current_stream": stream,
        "default_stream": stream,
        "manual_seed": None,
        "manual_seed_all": None,
        "ipc_collect": None,
        "is_current_stream_capturing": False,
        "mem_get_info": (TOTAL, TOTAL),
    }
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    functions = _functions(card)
    functions |= {
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
        "stream": Within,
        "device": Within,
    }
    for name, function in functions.items():
        setattr(cuda, name, function)
        for part in (cuda.memory, cuda.random):
            if hasattr(part, name):
                setattr(part, name, function)
    cuda.Event, cuda.Stream = Event, Stream
    torch.Tensor.pin_memory = lambda tensor, *_: tensor  # all memory is the host's
    torch._utils._to = torch.storage._to = _moved_storage(torch, torch._utils._to)
    torch._C._cuda_getDevice = lambda: 0
    torch._C._cuda_setDevice = torch._C._cuda_exchangeDevice = lambda _: 0
    torch._C._cuda_getCurrentRawStream = lambda _: 0  # bitsandbytes takes it when it is imported
    torch.version.cuda = "12.8"
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.utils.checkpoint.get_device_states = lambda *_: ([0], [torch.get_rng_state()])


def _moved_storage(torch: ModuleType, move: Any) -> Any:
    """Return the move of a storage, which a CPU build cannot make on a card."""

    def moved(self, device, non_blocking=False):
        if device.type != "cuda" or self.device.type == "cuda":
            return move(self, device, non_blocking)
        made = torch.empty(self.size(), dtype=torch.uint8, device=device).untyped_storage()
        return made.copy_(self, non_blocking)

    return moved


def _functions(card: Card) -> dict[str, Any]:
    stats = card.stats

    def record(enabled="all", *_, **__) -> None:
        card.recording = enabled is not None
        card.recorder.begin_recording()

    def snapshot(*_, **__) -> dict[str, Any]:
        stats()  # also reports what was released
        return snapshot_of(card.recorder)

    def dump(file="snapshot.pickle", *_, **__) -> None:
        Path(file).write_bytes(pickle.dumps(snapshot(), protocol=4))

    return {
        "memory_stats": lambda *_: stats(),
        "memory_allocated": lambda *_: stats()["allocated_bytes.all.current"],
        "memory_reserved": lambda *_: stats()["reserved_bytes.all.current"],
        "max_memory_allocated": lambda *_: stats()["allocated_bytes.all.peak"],
        "max_memory_reserved": lambda *_: stats()["reserved_bytes.all.peak"],
        "reset_peak_memory_stats": lambda *_: card.reset_peaks(),
        "empty_cache": lambda: card.allocator.release_cached(),
        "mem_get_info": lambda *_: (TOTAL - CONTEXT - card.allocator.reserved, TOTAL),
        "set_per_process_memory_fraction": lambda share, *_: card.limit(int(share * TOTAL)),
        "_record_memory_history": record,
        "_snapshot": snapshot,
        "_dump_snapshot": dump,
    }
