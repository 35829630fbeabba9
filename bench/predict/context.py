"""Context: what a process holds on a card outside torch's allocator, as an interval.

The CUDA context (the catalogue has it by card), and what it grows by while kernels are loaded and
run for the first time.
"""

from __future__ import annotations

from bench.units import KIB

# Kernels whose registers spill get a stack in device memory, for every thread that the card can hold;
# the driver makes it when the first such kernel is launched, and does not give it back. The limit is
# 1 KiB a thread (cudaLimitStackSize, its default: CUDA C++ Programming Guide, "Device Management").
STACK_BYTES_A_THREAD = 1 * KIB


def context_growth_bytes(multiprocessors: int, threads_per_multiprocessor: int) -> tuple[int, int]:
    """Return the least and the most that a context grows by between its making and the last step."""
    return 0, STACK_BYTES_A_THREAD * threads_per_multiprocessor * multiprocessors
