"""Peak of torch's CPU allocator: what tensors hold on the host, to the byte.

torch keeps no such peak (`torch.cuda` does for a card), but its profiler reports each allocation
and each release. It writes down every operator too, which costs time and memory: a pass of its
own, never the measured run. In torch 2.13:

- A size is what was asked for. The allocator aligns blocks to 64 bytes (c10/core/alignment.h), so
  the next block may begin later, but no rounding is in the figure.
- Weights that `safetensors` maps from a file are reported when they are mapped, with the size of
  the whole file, header and all (`MapAllocator`); they are pages of the process once the optimizer
  has written to them.
- Only the thread that began is seen (with `profile_all_threads` no memory event comes at all). On
  the CPU forward, backward and the optimizer run in it.
- Not in it: scratch space of oneDNN and MKL, Arrow's and Python's own memory, other processes.
"""

from __future__ import annotations

from typing import Any

from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile

_MEMORY_EVENT = "[memory]"  # torch.autograd.profiler_util.MEMORY_EVENT_NAME


class CpuTensorMemory:
    """Peak bytes held by tensors on the CPU, counted from the first `start` on.

    A tensor that was there before isn't counted; its release isn't either, since the allocator
    reports only blocks that it saw being made. `read` and the next `start` must follow each other
    at once: what is allocated or released between them is missed.
    """

    def __init__(self) -> None:
        self._held_bytes = 0
        self._profile: profile | None = None

    def idle(self) -> dict[str, int]:
        """Return nothing: what was held before is not known, and not counted."""
        return {}

    def sources(self) -> dict[str, str]:
        """Return where the figure comes from."""
        return {"peak_cpu_tensors_bytes": "memory events of torch's profiler"}

    def start(self, phase: str = "") -> None:
        """Begin a new peak at what tensors hold now."""
        self._profile = profile(profile_memory=True)
        self._profile.__enter__()

    def read(self) -> dict[str, int]:
        """Return the peak since `start`, in bytes; ends the profiler, so only once after each."""
        assert self._profile is not None, "read without start"
        self._profile.__exit__(None, None, None)
        peak = self._held_bytes
        for change in _changes(self._profile):
            self._held_bytes += change
            peak = max(peak, self._held_bytes)
        self._profile = None
        return {"peak_cpu_tensors_bytes": peak}

    def absent(self) -> dict[str, str]:
        """Return nothing: the CPU's allocator is always there."""
        return {}


def _changes(ended: profile) -> list[int]:
    """Return the bytes that each allocation added, or each release took away, in order of time."""
    # The raw events: `ended.events()` would fold them into the operators, without an order.
    assert ended.kineto_results is not None
    events: list[Any] = ended.kineto_results.events()  # torch's stubs leave out `nbytes`
    found = [
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == _MEMORY_EVENT and event.device_type() == DeviceType.CPU
    ]
    found.sort(key=lambda change: change[0])  # stable: events of one moment stay as they came
    return [nbytes for _, nbytes in found]
