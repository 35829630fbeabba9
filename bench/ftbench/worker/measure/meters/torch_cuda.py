"""Peaks of torch's CUDA caching allocator.

`allocated` is the memory of tensors, `reserved` the memory that the allocator took from the driver. Both peaks
are host-side counters: reading them neither synchronises nor costs memory. Only this meter may reset them,
since `reset_peak_memory_stats` resets them for the whole process.
"""

from __future__ import annotations

from typing import Protocol


class CudaAllocator(Protocol):
    """The functions of `torch.cuda` that are used; tests without a card pass a fake."""

    def reset_peak_memory_stats(self) -> None:
        """Begin new peaks at the current figures."""

    def memory_allocated(self) -> int:
        """Return the bytes now allocated to tensors."""

    def memory_reserved(self) -> int:
        """Return the bytes now reserved from the driver."""

    def max_memory_allocated(self) -> int:
        """Return the peak of bytes allocated to tensors."""

    def max_memory_reserved(self) -> int:
        """Return the peak of bytes reserved from the driver."""

    def memory_stats(self) -> dict[str, int]:
        """Return the allocator's counters."""


class TorchCudaMemory:
    """Peak allocated and peak reserved bytes of the process's one CUDA device."""

    def __init__(self, allocator: CudaAllocator) -> None:
        self._allocator = allocator

    def idle(self) -> dict[str, int]:
        """Return the current figures; they are 0 in a new process."""
        return {
            "peak_allocated_bytes": self._allocator.memory_allocated(),
            "peak_reserved_bytes": self._allocator.memory_reserved(),
        }

    def start(self, phase: str) -> None:
        """Begin new peaks."""
        self._allocator.reset_peak_memory_stats()

    def read(self) -> dict[str, int]:
        """Return both peaks since `start`, in bytes."""
        return {
            "peak_allocated_bytes": self._allocator.max_memory_allocated(),
            "peak_reserved_bytes": self._allocator.max_memory_reserved(),
        }

    def sources(self) -> dict[str, str]:
        """Return the source of each figure."""
        return {
            "peak_allocated_bytes": "torch.cuda.max_memory_allocated, reset as each phase begins",
            "peak_reserved_bytes": "torch.cuda.max_memory_reserved, reset as each phase begins",
        }

    def absent(self) -> dict[str, str]:
        """Return nothing: on CUDA both figures are always present."""
        return {}

    def retries(self) -> int:
        """Return the number of allocations that had to free cached blocks first, which limits the peak."""
        return self._allocator.memory_stats().get("num_alloc_retries", 0)


class NoCuda:
    """Replaces the CUDA meter for a cell without a CUDA device."""

    FIELDS = (
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "peak_process_bytes",
        "peak_device_bytes",
        "context_bytes",
    )

    def idle(self) -> dict[str, int]:
        """Return nothing."""
        return {}

    def sources(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def start(self, phase: str) -> None:
        """Do nothing."""

    def read(self) -> dict[str, int]:
        """Return nothing."""
        return {}

    def absent(self) -> dict[str, str]:
        """Return the reason for each of the CUDA figures."""
        return dict.fromkeys(self.FIELDS, "the cell ran on the CPU")
