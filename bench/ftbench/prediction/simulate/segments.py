"""Segments made by `cudaMalloc` and split into blocks, as in a pool of torch's caching allocator.

The name beside a rule is the function of `c10/cuda/CUDACachingAllocator.cpp` that it comes from.
"""

from __future__ import annotations

from bisect import bisect_left

from ftbench.base.units import MIB
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings

MIN_BLOCK = 512  # kMinBlockSize: every block is a multiple of it
SMALL_SIZE = 1 * MIB  # kSmallSize: the largest block of the small pool
SMALL_SEGMENT = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT = 20 * MIB  # kLargeBuffer
MIN_OWN_SEGMENT = 10 * MIB  # kMinLargeAlloc: from here on, a request has a segment of its own size
ROUND_LARGE = 2 * MIB  # kRoundLarge

# The key of a free block is its size and its address in one integer: bisecting a list of integers
# costs a third of bisecting tuples, and this is the innermost loop.
ADDRESS_BITS = 48  # 256 TiB of segments, whose addresses are never reused
ADDRESS_END = 1 << ADDRESS_BITS


class Block:
    """A piece of a segment, linked to its neighbours. `malloc` returns it, and `free` takes it."""

    __slots__ = ("address", "free", "mapped", "next", "pool", "prev", "requested", "size")

    def __init__(
        self, pool: SegmentPool, address: int, size: int, prev: Block | None, after: Block | None
    ):
        self.pool = pool
        self.address = address
        self.size = size
        self.prev = prev
        self.next = after
        self.free = False  # True exactly while it is in its pool's list
        self.mapped = True  # False only for the addresses of an expandable segment without memory
        self.requested = 0


def segment_size(size: int) -> int:
    """Return the bytes of a new segment for a block of this size (`get_allocation_size`)."""
    if size <= SMALL_SIZE:
        return SMALL_SEGMENT
    if size < MIN_OWN_SEGMENT:
        return LARGE_SEGMENT
    return (size + ROUND_LARGE - 1) // ROUND_LARGE * ROUND_LARGE


class SegmentPool:
    """One pool (small or large) of segments that are made by `cudaMalloc`.

    `keys` and `blocks` are its free blocks by size, then address (`BlockComparatorSize`). Each pool
    counts addresses for itself: they are compared only within a pool.
    """

    __slots__ = ("_descending", "_next_address", "blocks", "keys", "reserved", "smallest_rest")

    def __init__(self, *, small: bool, settings: AllocatorSettings):
        self.keys: list[int] = []
        self.blocks: list[Block] = []
        self.reserved = 0
        # should_split: in the small pool a rest of 512 B becomes a block; in the large pool only one of
        # more than 1 MiB, that is, of 1 MiB and 512 B.
        self.smallest_rest = MIN_BLOCK if small else SMALL_SIZE + MIN_BLOCK
        self._descending = settings.address_order == "descending"
        self._next_address = ADDRESS_END if self._descending else 0

    def take(self, size: int) -> Block | None:
        """Remove and return the smallest free block that is large enough (`get_free_block`)."""
        index = bisect_left(self.keys, size << ADDRESS_BITS)
        if index == len(self.keys):
            return None
        del self.keys[index]
        return self.blocks.pop(index)

    def put(self, block: Block) -> None:
        """Put a block into the list."""
        key = block.size << ADDRESS_BITS | block.address
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.blocks.insert(index, block)
        block.free = True

    def remove(self, block: Block) -> None:
        """Take this block out of the list."""
        index = bisect_left(self.keys, block.size << ADDRESS_BITS | block.address)
        del self.keys[index]
        del self.blocks[index]
        block.free = False

    def cut(self, block: Block, size: int) -> Block:
        """Split a block at a size and return the rest, which follows it and is in no list."""
        after = block.next
        rest = Block(self, block.address + size, block.size - size, block, after)
        if after is not None:
            after.prev = rest
        block.next = rest
        block.size = size
        return rest

    def merge(self, block: Block) -> None:
        """Merge the free neighbours into a block that is in no list (`try_merge_blocks`)."""
        before = block.prev
        if before is not None and before.free:
            self.remove(before)
            join_before(before, block)
        after = block.next
        if after is not None and after.free:
            self.remove(after)
            join_after(block, after)

    def extend(self, size: int, room: int) -> Block | None:
        """Return a new segment as one block in no list, or None if it is larger than `room`.

        One cudaMalloc (`alloc_block`): the whole segment fits, or nothing changes.
        """
        nbytes = segment_size(size)
        if nbytes > room:
            return None
        if self._descending:
            self._next_address -= nbytes
        block = Block(self, self._next_address, nbytes, None, None)
        if not self._descending:
            self._next_address += nbytes
        self.reserved += nbytes
        return block

    def release(self) -> None:
        """Release the segments that consist of one free block (`release_blocks`)."""
        for block in [b for b in self.blocks if b.prev is None and b.next is None]:
            self.remove(block)
            self.reserved -= block.size


def join_before(before: Block, block: Block) -> None:
    """Merge the block before a block into it."""
    block.address = before.address
    block.size += before.size
    block.prev = before.prev
    if before.prev is not None:
        before.prev.next = block


def join_after(block: Block, after: Block) -> None:
    """Merge the block after a block into it."""
    block.size += after.size
    block.next = after.next
    if after.next is not None:
        after.next.prev = block
