"""Peaks of torch's CUDA caching allocator.

`allocated` is what tensors hold, `reserved` what the allocator took from the driver. Both peaks
are host-side counters: reading them neither synchronises nor costs memory. This meter is the only
one in a process that resets them (`reset_peak_memory_stats` resets everybody's).
"""

from __future__ import annotations

from typing import Protocol


class CudaAllocator(Protocol):
    """The part of `torch.cuda` that is read; a fake stands in for it where there is no card."""

    def reset_peak_memory_stats(self) -> None:
        """Begin new peaks at the present figures."""

    def memory_allocated(self) -> int:
        """Return the bytes that tensors hold now."""

    def memory_reserved(self) -> int:
        """Return the bytes taken from the driver now."""

    def max_memory_allocated(self) -> int:
        """Return the peak of bytes held by tensors."""

    def max_memory_reserved(self) -> int:
        """Return the peak of bytes taken from the driver."""

    def memory_stats(self) -> dict[str, int]:
        """Return the allocator's counters."""


class TorchCudaMemory:
    """Peak allocated and peak reserved bytes of the process's one CUDA device."""

    def __init__(self, allocator: CudaAllocator) -> None:
        self._allocator = allocator

    def idle(self) -> dict[str, int]:
        """Return what is held now, before the cell: nothing, in a process of its own."""
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
        """Return where the figures come from."""
        return {
            "peak_allocated_bytes": "torch.cuda.max_memory_allocated, reset as each phase begins",
            "peak_reserved_bytes": "torch.cuda.max_memory_reserved, reset as each phase begins",
        }

    def absent(self) -> dict[str, str]:
        """Return nothing: on CUDA both figures are always there."""
        return {}

    def retries(self) -> int:
        """Return how often an allocation had to free cached blocks first: the peak was clipped."""
        return self._allocator.memory_stats().get("num_alloc_retries", 0)


class NoCuda:
    """Stands for the CUDA figures on a machine, or a cell, without a CUDA device."""

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
