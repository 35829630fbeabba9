"""Peak of torch's CPU allocator: the memory of tensors on the host, to the byte.

torch keeps no such peak (`torch.cuda` does for a card), but its profiler reports each allocation
and each release. It also records every operator, which costs time and memory, so it runs in a pass of its
own, never in the measured run. In torch 2.13:

- A size is the requested one. The allocator aligns blocks to 64 bytes (c10/core/alignment.h), so
  the next block may begin later, but the figure includes no rounding.
- Weights that `safetensors` maps from a file are reported when they are mapped, with the size of
  the whole file including its header (`MapAllocator`); they become pages of the process once the optimizer
  has written to them.
- Only the thread that started the profiler is seen (with `profile_all_threads` there are no memory events at
  all). On the CPU, forward, backward and the optimizer run in it.
- Not included: scratch space of oneDNN and MKL, Arrow's and Python's own memory, other processes.
"""

from __future__ import annotations

from typing import Any

from torch._C._autograd import DeviceType
from torch.autograd.profiler import profile

_MEMORY_EVENT = "[memory]"  # torch.autograd.profiler_util.MEMORY_EVENT_NAME


class CpuTensorMemory:
    """Peak bytes of tensors on the CPU, counted from the first `start` on.

    Neither earlier tensors nor their release are counted, since the allocator reports only blocks whose
    allocation it saw. `start` must follow `read` at once: allocations and releases in between are missed.
    """

    def __init__(self) -> None:
        self._held_bytes = 0
        self._profile: profile | None = None

    def idle(self) -> dict[str, int]:
        """Return nothing: earlier tensors are not known, and not counted."""
        return {}

    def sources(self) -> dict[str, str]:
        """Return the source of the figure."""
        return {"peak_cpu_tensors_bytes": "memory events of torch's profiler"}

    def start(self, phase: str = "") -> None:
        """Begin a new peak at the current size of tensors."""
        self._profile = profile(profile_memory=True)
        self._profile.__enter__()

    def read(self) -> dict[str, int]:
        """Return the peak since `start`, in bytes; ends the profiler, so call it once per `start`."""
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
    """Return the bytes of each allocation, and of each release as negative numbers, in order of time."""
    # The raw events, since `ended.events()` merges them into operators and loses their order.
    assert ended.kineto_results is not None
    events: list[Any] = ended.kineto_results.events()  # torch's stubs leave out `nbytes`
    found = [
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == _MEMORY_EVENT and event.device_type() == DeviceType.CPU
    ]
    found.sort(key=lambda change: change[0])  # stable: events of one moment keep their order
    return [nbytes for _, nbytes in found]
