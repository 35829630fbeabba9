"""The CUDA caching allocator, simulated: what torch reserves for a stream of allocations and frees.

It follows torch's native allocator (`c10/cuda/CUDACachingAllocator.cpp`; these rules are the same from
2.6 to 2.13) for one device and one stream in its default configuration: no `max_split_size_mb`, no
`roundup_power2_divisions`, no `garbage_collection_threshold`, no CUDA graphs. The name beside a rule
is the function of that file it comes from. Nothing here imports torch.

Three figures, each a sum over live allocations, from the inside out: *requested* (what was asked for),
*allocated* (whole blocks: rounding, and a rest too small to split off), *reserved* (segments held).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, Protocol

from ftbench.base.units import MIB

MIN_BLOCK = 512  # kMinBlockSize: every block is a multiple of it
SMALL_SIZE = 1 * MIB  # kSmallSize: the largest block of the small pool
SMALL_SEGMENT = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT = 20 * MIB  # kLargeBuffer
MIN_OWN_SEGMENT = 10 * MIB  # kMinLargeAlloc: from here on a request has a segment made to measure
ROUND_LARGE = 2 * MIB  # kRoundLarge

# The key of a free block is its size above its address, in one integer: bisecting a list of integers
# costs a third of bisecting tuples, and it is the innermost loop.
_ADDRESS_BITS = 48  # 256 TiB of segments, none of whose addresses is used twice
_ADDRESS_END = 1 << _ADDRESS_BITS
_UNLIMITED = 1 << 62


class OutOfMemory(Exception):  # noqa: N818  (it is an outcome of a simulation, not a fault)
    """A segment did not fit, even after every cached segment was given back. All figures in bytes."""

    def __init__(self, requested: int, reserved: int, capacity: int):
        super().__init__(f"{requested} B requested, {reserved} B of {capacity} B reserved")
        self.requested = requested
        self.reserved = reserved
        self.capacity = capacity


@dataclass(frozen=True)
class AllocatorSettings:
    """What a simulation depends on besides its events.

    `capacity_bytes` is what the process may reserve: the card's total less the CUDA context; None is
    no limit. `address_order` says on which side of the earlier segments a new one lies. It decides
    ties between free blocks of one size, and NVIDIA documents neither.
    """

    capacity_bytes: int | None = None
    address_order: Literal["ascending", "descending"] = "descending"
    expandable_segments: bool = False

    def __post_init__(self) -> None:
        if self.capacity_bytes is not None and self.capacity_bytes <= 0:
            raise ValueError(f"capacity_bytes is {self.capacity_bytes}; expected > 0, or None")
        if self.address_order not in ("ascending", "descending"):
            raise ValueError(
                f"address_order is {self.address_order!r}; expected 'ascending' or 'descending'"
            )


class Block:
    """A piece of a segment, linked to its neighbours there. What `malloc` returns and `free` takes."""

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
    """Return the bytes of the segment made for a block that fits nowhere (`get_allocation_size`)."""
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
        # should_split: a rest of 512 B is worth a block in the small pool; in the large one it takes
        # more than 1 MiB, that is 512 B more.
        self.smallest_rest = MIN_BLOCK if small else SMALL_SIZE + MIN_BLOCK
        self._descending = settings.address_order == "descending"
        self._next_address = _ADDRESS_END if self._descending else 0

    def take(self, size: int) -> Block | None:
        """Return the best fit, out of the list: the smallest that is large enough (`get_free_block`)."""
        index = bisect_left(self.keys, size << _ADDRESS_BITS)
        if index == len(self.keys):
            return None
        del self.keys[index]
        return self.blocks.pop(index)

    def put(self, block: Block) -> None:
        """Put a block into the list."""
        key = block.size << _ADDRESS_BITS | block.address
        index = bisect_left(self.keys, key)
        self.keys.insert(index, key)
        self.blocks.insert(index, block)
        block.free = True

    def remove(self, block: Block) -> None:
        """Take this block out of the list."""
        index = bisect_left(self.keys, block.size << _ADDRESS_BITS | block.address)
        del self.keys[index]
        del self.blocks[index]
        block.free = False

    def cut(self, block: Block, size: int) -> Block:
        """Return the rest of a block cut down to a size; the rest follows it and is in no list."""
        after = block.next
        rest = Block(self, block.address + size, block.size - size, block, after)
        if after is not None:
            after.prev = rest
        block.next = rest
        block.size = size
        return rest

    def merge(self, block: Block) -> None:
        """Swallow the free neighbours of a block that is in no list (`try_merge_blocks`)."""
        before = block.prev
        if before is not None and before.free:
            self.remove(before)
            _join_before(before, block)
        after = block.next
        if after is not None and after.free:
            self.remove(after)
            _join_after(block, after)

    def extend(self, size: int, room: int) -> Block | None:
        """Return a new segment as one block in no list, or None where it is more than `room`.

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
        """Give back the segments that are one free block, unsplit (`release_blocks`)."""
        for block in [b for b in self.blocks if b.prev is None and b.next is None]:
            self.remove(block)
            self.reserved -= block.size


class ExpandablePool(SegmentPool):
    """One pool as an expandable segment: a range of addresses that is given memory page by page.

    `unmapped` holds the ranges without memory, by address. The addresses of one segment are 1 1/8 of
    the card's memory (`find_expandable_block`); the capacity stands for that here.
    """

    __slots__ = ("_address_space", "_page", "unmapped")

    def __init__(self, *, small: bool, settings: AllocatorSettings):
        super().__init__(small=small, settings=settings)
        self.smallest_rest = MIN_BLOCK  # should_split: as in the small pool, for both
        self.unmapped: list[Block] = []
        self._page = SMALL_SEGMENT if small else LARGE_SEGMENT
        capacity = settings.capacity_bytes or _ADDRESS_END // 8
        self._address_space = _round_up(capacity + capacity // 8, self._page)
        self._next_address = 0

    def take(self, size: int) -> Block | None:
        """Return the best fit, where a block's size is what it can grow to (`get_free_block`)."""
        index = bisect_left(self.keys, size << _ADDRESS_BITS)
        if index == len(self.keys):
            return None
        while index + 1 < len(self.keys) and (
            _reach(self.blocks[index + 1]) < _reach(self.blocks[index])
        ):
            index += 1
        del self.keys[index]
        return self.blocks.pop(index)

    def extend(self, size: int, room: int) -> Block | None:
        """Return a block of at least `size` at the lowest address that can be made to hold it.

        None where a page is more than `room` is left for; what was mapped until then stays mapped,
        as in `try_allocate_expandable_block`.
        """
        limit = self.reserved + room
        block = self._lowest(size)
        if not block.mapped and not self._map(block, min(block.size, size), limit):
            return None
        while block.size < size:  # free, then unmapped, then anything
            gap = block.next
            if gap is None or not self._map(gap, min(size - block.size, gap.size), limit):
                return None
            block = gap
        self.remove(block)
        return block

    def release(self) -> None:
        """Unmap the pages that lie wholly in free blocks (`release_blocks`, `unmap_block`)."""
        for block in self.blocks.copy():
            self._unmap(block)

    def _lowest(self, size: int) -> Block:
        # find_expandable_block: the lowest unmapped range, or the free block right before it, from
        # which free and unmapped blocks in a row are large enough. Else a segment of its own.
        for gap in self.unmapped:
            start = gap.prev if gap.prev is not None and gap.prev.free else gap
            if _available(start, size):
                return start
        gap = Block(self, self._next_address, self._address_space, None, None)
        gap.mapped = False
        self._next_address += self._address_space
        self.unmapped.append(gap)
        return gap

    def _map(self, block: Block, size: int, limit: int) -> bool:
        # map_block: whole pages from the start of an unmapped range, all of them or none. Another
        # unmapped range remains; the mapped one joins its free neighbours and is free itself.
        nbytes = _round_up(size, self._page)
        if self.reserved + nbytes > limit:
            return False
        self.unmapped.remove(block)
        block.mapped = True
        if nbytes < block.size:
            rest = self.cut(block, nbytes)
            rest.mapped = False
            self._put_unmapped(rest)
        self.merge(block)
        self.put(block)
        self.reserved += nbytes
        return True

    def _unmap(self, block: Block) -> None:
        # unmap_block: what is left of a page at either end of the block stays, as a free block.
        begin = _round_up(block.address, self._page)
        end = (block.address + block.size) // self._page * self._page
        if begin >= end:
            return
        self.remove(block)
        if begin > block.address:
            middle = self.cut(block, begin - block.address)
            self.put(block)
            block = middle
        if block.address + block.size > end:
            self.put(self.cut(block, end - begin))
        block.mapped = False
        self.reserved -= end - begin
        self._merge_unmapped(block)
        if block.prev is not None or block.next is not None:  # else release_expandable_segment
            self._put_unmapped(block)

    def _merge_unmapped(self, block: Block) -> None:
        if block.prev is not None and not block.prev.mapped:
            self.unmapped.remove(block.prev)
            _join_before(block.prev, block)
        if block.next is not None and not block.next.mapped:
            self.unmapped.remove(block.next)
            _join_after(block, block.next)

    def _put_unmapped(self, block: Block) -> None:
        insort(self.unmapped, block, key=attrgetter("address"))


def _round_up(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _join_before(before: Block, block: Block) -> None:
    block.address = before.address
    block.size += before.size
    block.prev = before.prev
    if before.prev is not None:
        before.prev.next = block


def _join_after(block: Block, after: Block) -> None:
    block.size += after.size
    block.next = after.next
    if after.next is not None:
        after.next.prev = block


def _reach(block: Block) -> int:
    after = block.next
    return block.size if after is None or after.mapped else block.size + after.size


def _available(block: Block | None, size: int) -> bool:
    while size > 0 and block is not None and (block.free or not block.mapped):
        size -= block.size
        block = block.next
    return size <= 0


class CachingAllocator:
    """The allocator of one device, as one stream sees it. All figures in bytes.

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
        """Return a block for a request (`malloc`); None for zero bytes, which take nothing.

        Raises OutOfMemory; what is allocated is then as it was before.
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
        """Take a block back into its pool (`free_block`). None, from zero bytes, is nothing to do."""
        if block is None:
            return
        if block.free:
            raise ValueError(f"the block at {block.address} is free already")
        self.allocated -= block.size
        self.requested -= block.requested
        block.pool.merge(block)
        block.pool.put(block)

    def release_cached(self) -> None:
        """Give unused memory back to the device (`release_cached_blocks`, torch.cuda.empty_cache)."""
        self._large.release()
        self._small.release()
        self.reserved = self._small.reserved + self._large.reserved

    def _extend(self, pool: SegmentPool, size: int, nbytes: int) -> Block:
        # malloc, where nothing free fits: new memory, or give back what is cached and try once more.
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
            raise OutOfMemory(nbytes, self.reserved, self._capacity)
        return block

    def _note_reserved(self) -> None:
        self.reserved = self._small.reserved + self._large.reserved
        self.peak_reserved = max(self.peak_reserved, self.reserved)


class IntArray(Protocol):
    """An array of integers that can become a list, such as numpy's."""

    def tolist(self) -> list[int]:
        """Return the integers."""
        ...


Integers = Sequence[int] | IntArray


@dataclass(frozen=True)
class Replay:
    """What a stream of events came to: peaks in bytes, and the index of the event that first reached them.

    An index is None where nothing was allocated. After `failed_at` (out of memory) nothing was played.
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
) -> Replay:
    """Return the peaks of a stream of events on a fresh allocator.

    Event i allocates (`signs[i]` > 0) `nbytes[i]` bytes under the name `blocks[i]`, or frees that name
    (its bytes are then not looked at). A name may be used again once it is free; otherwise, and for a
    free of what is not allocated, it raises ValueError.
    """
    allocator = CachingAllocator(settings)
    malloc, free = allocator.malloc, allocator.free
    live: dict[int, Block | None] = {}
    allocated = reserved = 0
    at_allocated = at_reserved = failed_at = None
    index = -1
    try:
        for sign, name, size in zip(_list(signs), _list(blocks), _list(nbytes), strict=True):
            index += 1
            if (name in live) == (sign > 0):
                state = "allocated" if sign > 0 else "free"
                raise ValueError(f"event {index}: block {name} is {state} already")
            if sign > 0:
                live[name] = malloc(size)
                if allocator.peak_allocated > allocated:
                    allocated, at_allocated = allocator.peak_allocated, index
                if allocator.peak_reserved > reserved:
                    reserved, at_reserved = allocator.peak_reserved, index
            else:
                free(live.pop(name))
    except OutOfMemory:
        failed_at = index
        if allocator.peak_reserved > reserved:  # pages that were mapped before the one that failed
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
