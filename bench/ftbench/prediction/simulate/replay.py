"""Replay: a stream of allocations and frees, played on a fresh caching allocator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

from ftbench.prediction.simulate.allocator import CachingAllocator, SimulatedOutOfMemory
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.segments import Block


class IntArray(Protocol):
    """An array of integers that can become a list, such as numpy's."""

    def tolist(self) -> list[int]:
        """Return the integers."""
        ...


Integers = Sequence[int] | IntArray

# What an event does to its block. One that waits counts as free, but is not reused before `REUSE`.
ALLOCATE, FREE, WAIT, REUSE = 1, -1, -2, 0


@dataclass(frozen=True)
class Replay:
    """The result of a stream of events: peaks in bytes, and the index of the event that first reached each.

    An index is None if nothing was allocated. The replay ends at `failed_at` if memory runs out there.
    """

    peak_requested_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    retries: int
    at_allocated: int | None
    at_reserved: int | None
    failed_at: int | None

    @property
    def out_of_memory(self) -> bool:
        """Whether an allocation failed, at event `failed_at`."""
        return self.failed_at is not None


def replay(
    signs: Integers,
    blocks: Integers,
    nbytes: Integers,
    settings: AllocatorSettings | None = None,
    *,
    streams: Sequence[int] | None = None,
) -> Replay:
    """Return the peaks of a sequence of events on a fresh allocator.

    Event i allocates (`signs[i]` is `ALLOCATE`) `nbytes[i]` bytes under the name `blocks[i]`, or frees that name
    (its bytes are then ignored) at once or in two events. A name may be used again once it is free. `streams[i]`
    is the number of the CUDA stream that event i allocates on, 0 without it. Raises ValueError if a name is
    allocated twice, or freed without an allocation.
    """
    allocator = CachingAllocator(settings)
    malloc, free = allocator.malloc, allocator.free
    live: dict[int, Block | None] = {}
    waiting: dict[int, Block | None] = {}
    allocated = reserved = 0
    at_allocated = at_reserved = failed_at = None
    index = -1
    sizes = _list(nbytes)
    on = repeat(0, len(sizes)) if streams is None else streams
    try:
        for sign, name, size, stream in zip(_list(signs), _list(blocks), sizes, on, strict=True):
            index += 1
            if sign == REUSE:
                allocator.reuse(waiting.pop(name, None))
                continue
            if (name in live) == (sign > 0):
                state = "allocated" if sign > 0 else "free"
                raise ValueError(f"event {index}: block {name} is {state} already")
            if sign > 0:
                live[name] = malloc(size, stream)
                if allocator.peak_allocated > allocated:
                    allocated, at_allocated = allocator.peak_allocated, index
                if allocator.peak_reserved > reserved:
                    reserved, at_reserved = allocator.peak_reserved, index
            elif sign == FREE:
                free(live.pop(name))
            else:
                waiting[name] = live.pop(name)
                free(waiting[name], reusable=False)
    except SimulatedOutOfMemory:
        failed_at = index
        if allocator.peak_reserved > reserved:  # some pages were mapped before the failure
            at_reserved = index
    return Replay(
        peak_requested_bytes=allocator.peak_requested,
        peak_allocated_bytes=allocator.peak_allocated,
        peak_reserved_bytes=allocator.peak_reserved,
        retries=allocator.retries,
        at_allocated=at_allocated,
        at_reserved=at_reserved,
        failed_at=failed_at,
    )


def _list(values: Integers) -> Sequence[int]:
    return values if isinstance(values, Sequence) else values.tolist()
