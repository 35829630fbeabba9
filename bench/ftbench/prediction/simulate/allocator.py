"""The CUDA caching allocator, simulated: the memory that torch reserves for a stream of allocations and frees.

It follows torch's native allocator (`c10/cuda/CUDACachingAllocator.cpp`; these rules are the same from
2.6 to 2.13) for one device in its default configuration: no `max_split_size_mb`, no
`roundup_power2_divisions`, no `garbage_collection_threshold`, no CUDA graphs. The name beside a rule
is the function of that file that it comes from. Nothing here imports torch.

A block belongs to the stream that was current when it was allocated, and only requests on that stream find it
again: free blocks are ordered by (stream, size, address), and a segment has one stream. So each stream has
pools of its own. Only the limit is common to all.

Three figures, each larger than the one before: *requested* (the bytes of live requests), *allocated* (their
whole blocks, with rounding and rests too small to split off), *reserved* (all segments).
"""

from __future__ import annotations

from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.expandable_segments import ExpandablePool
from ftbench.prediction.simulate.segments import SMALL_SIZE, Block, SegmentPool

_UNLIMITED = 1 << 62


class SimulatedOutOfMemory(Exception):  # noqa: N818  (it is an outcome of a simulation, not a fault)
    """A segment did not fit, even after every cached segment was released. All figures in bytes."""

    def __init__(self, requested: int, reserved: int, capacity: int):
        super().__init__(f"{requested} B requested, {reserved} B of {capacity} B reserved")
        self.requested = requested
        self.reserved = reserved
        self.capacity = capacity


class CachingAllocator:
    """The allocator of one device. All figures in bytes.

    The peaks are those of `torch.cuda.memory_stats`: `requested_bytes`, `allocated_bytes` and
    `reserved_bytes`, `.all.peak`; `retries` is its `num_alloc_retries`.
    """

    __slots__ = (
        "_capacity",
        "_pools",
        "_settings",
        "_waiting",
        "allocated",
        "peak_allocated",
        "peak_requested",
        "peak_reserved",
        "requested",
        "reserved",
        "retries",
    )

    def __init__(self, settings: AllocatorSettings | None = None):
        self._settings = settings or AllocatorSettings()
        self._pools: list[SegmentPool] = []  # the small and the large pool of each stream
        self._waiting: set[Block] = set()  # freed, but perhaps still in use on another stream
        self._capacity = self._settings.capacity_bytes or _UNLIMITED
        self.requested = self.allocated = self.reserved = 0
        self.peak_requested = self.peak_allocated = self.peak_reserved = 0
        self.retries = 0

    def malloc(self, nbytes: int, stream: int = 0) -> Block | None:
        """Return a block for a request on a stream (`malloc`); None for zero bytes, which need no block.

        Raises SimulatedOutOfMemory, and then leaves the allocations as they were.
        """
        if nbytes <= 0:
            if nbytes < 0:
                raise ValueError(f"a request of {nbytes} bytes; expected >= 0")
            return None
        size = (nbytes + 511) & -512  # round_size: up to a multiple of MIN_BLOCK
        number = 2 * stream + (size > SMALL_SIZE)
        pool = self._pools[number] if number < len(self._pools) else self._new_pool(number)
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

    def free(self, block: Block | None, *, reusable: bool = True) -> None:
        """Return a block to its pool (`free_block`); does nothing for None, the block of zero bytes.

        One that is not `reusable` counts as free, but stays out of the pool until `reuse`: `record_stream` was
        called for it, and the events of that stream have not happened (`insert_events`).
        """
        if block is None:
            return
        if block.free or block in self._waiting:
            raise ValueError(f"the block at {block.address} is free already")
        self.allocated -= block.size
        self.requested -= block.requested
        if reusable:
            _put_back(block)
        else:
            self._waiting.add(block)

    def reuse(self, block: Block | None) -> None:
        """Return a block that was freed earlier to its pool, if it still waits (`process_events`)."""
        if block in self._waiting:
            self._waiting.remove(block)
            _put_back(block)

    def release_cached(self) -> None:
        """Release the unused memory of all streams to the device (`release_cached_blocks`, `empty_cache`).

        It first waits for the events of other streams (`synchronize_and_free_events`).
        """
        for block in self._waiting:
            _put_back(block)
        self._waiting.clear()
        for pool in self._pools:
            pool.release()
        self._sum_reserved()

    def _new_pool(self, number: int) -> SegmentPool:
        kind = ExpandablePool if self._settings.expandable_segments else SegmentPool
        while len(self._pools) <= number:
            small = len(self._pools) % 2 == 0
            self._pools.append(kind(small=small, settings=self._settings))
        return self._pools[number]

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
        self._sum_reserved()
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _sum_reserved(self) -> None:
        self.reserved = sum(pool.reserved for pool in self._pools)


def _put_back(block: Block) -> None:
    block.pool.merge(block)
    block.pool.put(block)
