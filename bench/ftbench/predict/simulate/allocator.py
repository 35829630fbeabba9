"""The CUDA caching allocator, simulated: the memory that torch reserves for a stream of allocations and frees.

It follows torch's native allocator (`c10/cuda/CUDACachingAllocator.cpp`; these rules are the same from
2.6 to 2.13) for one device and one stream in its default configuration: no `max_split_size_mb`, no
`roundup_power2_divisions`, no `garbage_collection_threshold`, no CUDA graphs. The name beside a rule
is the function of that file that it comes from. Nothing here imports torch.

Three figures, each larger than the one before: *requested* (the bytes of live requests), *allocated* (their
whole blocks, with rounding and rests too small to split off), *reserved* (all segments).
"""

from __future__ import annotations

from ftbench.predict.simulate.allocator_settings import AllocatorSettings
from ftbench.predict.simulate.expandable_segments import ExpandablePool
from ftbench.predict.simulate.segments import SMALL_SIZE, Block, SegmentPool

_UNLIMITED = 1 << 62


class SimulatedOutOfMemory(Exception):  # noqa: N818  (it is an outcome of a simulation, not a fault)
    """A segment did not fit, even after every cached segment was released. All figures in bytes."""

    def __init__(self, requested: int, reserved: int, capacity: int):
        super().__init__(f"{requested} B requested, {reserved} B of {capacity} B reserved")
        self.requested = requested
        self.reserved = reserved
        self.capacity = capacity


class CachingAllocator:
    """The allocator of one device, for one stream. All figures in bytes.

    The peaks are those of `torch.cuda.memory_stats`: `requested_bytes`, `allocated_bytes` and
    `reserved_bytes`, `.all.peak`; `retries` is its `num_alloc_retries`.
    """

    __slots__ = (
        "_capacity",
        "_large",
        "_small",
        "allocated",
        "peak_allocated",
        "peak_requested",
        "peak_reserved",
        "requested",
        "reserved",
        "retries",
    )

    def __init__(self, settings: AllocatorSettings | None = None):
        settings = settings or AllocatorSettings()
        pool = ExpandablePool if settings.expandable_segments else SegmentPool
        self._small = pool(small=True, settings=settings)
        self._large = pool(small=False, settings=settings)
        self._capacity = settings.capacity_bytes or _UNLIMITED
        self.requested = self.allocated = self.reserved = 0
        self.peak_requested = self.peak_allocated = self.peak_reserved = 0
        self.retries = 0

    def malloc(self, nbytes: int) -> Block | None:
        """Return a block for a request (`malloc`); None for zero bytes, which need no block.

        Raises SimulatedOutOfMemory, and then leaves the allocations as they were.
        """
        if nbytes <= 0:
            if nbytes < 0:
                raise ValueError(f"a request of {nbytes} bytes; expected >= 0")
            return None
        size = (nbytes + 511) & -512  # round_size: up to a multiple of MIN_BLOCK
        pool = self._small if size <= SMALL_SIZE else self._large
        block = pool.take(size) or self._extend(pool, size, nbytes)
        if block.size - size >= pool.smallest_rest:  # should_split
            pool.put(pool.cut(block, size))
        block.free = False
        block.requested = nbytes
        self.requested += nbytes
        if self.requested > self.peak_requested:
            self.peak_requested = self.requested
        self.allocated += block.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block | None) -> None:
        """Return a block to its pool (`free_block`); does nothing for None, the block of zero bytes."""
        if block is None:
            return
        if block.free:
            raise ValueError(f"the block at {block.address} is free already")
        self.allocated -= block.size
        self.requested -= block.requested
        block.pool.merge(block)
        block.pool.put(block)

    def release_cached(self) -> None:
        """Release unused memory to the device (`release_cached_blocks`, torch.cuda.empty_cache)."""
        self._large.release()
        self._small.release()
        self.reserved = self._small.reserved + self._large.reserved

    def _extend(self, pool: SegmentPool, size: int, nbytes: int) -> Block:
        # malloc if no free block fits: new memory; else release cached segments and try once more.
        # Between the two it calls release_available_cached_blocks, which does nothing unless
        # max_split_size is set.
        block = pool.extend(size, self._capacity - self.reserved)
        if block is None:
            self._note_reserved()
            self.release_cached()
            self.retries += 1
            block = pool.extend(size, self._capacity - self.reserved)
        self._note_reserved()
        if block is None:
            raise SimulatedOutOfMemory(nbytes, self.reserved, self._capacity)
        return block

    def _note_reserved(self) -> None:
        self.reserved = self._small.reserved + self._large.reserved
        self.peak_reserved = max(self.peak_reserved, self.reserved)
