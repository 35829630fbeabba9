"""Expandable segments: ranges of addresses to which memory is mapped page by page.

The name beside a rule is the function of `c10/cuda/CUDACachingAllocator.cpp` that it comes from.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import attrgetter

from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.segments import (
    ADDRESS_BITS,
    ADDRESS_END,
    LARGE_SEGMENT,
    MIN_BLOCK,
    SMALL_SEGMENT,
    Block,
    SegmentPool,
    join_after,
    join_before,
)


class ExpandablePool(SegmentPool):
    """One pool as an expandable segment: a range of addresses to which memory is mapped page by page.

    `unmapped` has the ranges without memory, by address. The range of one segment is 1 1/8 times the
    card's memory (`find_expandable_block`); here 1 1/8 times the capacity.
    """

    __slots__ = ("_address_space", "_page", "unmapped")

    def __init__(self, *, small: bool, settings: AllocatorSettings):
        super().__init__(small=small, settings=settings)
        self.smallest_rest = MIN_BLOCK  # should_split: as in the small pool, for both
        self.unmapped: list[Block] = []
        self._page = SMALL_SEGMENT if small else LARGE_SEGMENT
        capacity = settings.capacity_bytes or ADDRESS_END // 8
        self._address_space = _round_up(capacity + capacity // 8, self._page)
        self._next_address = 0

    def take(self, size: int) -> Block | None:
        """Return the best fit, counting the size to which a block can grow (`get_free_block`)."""
        index = bisect_left(self.keys, size << ADDRESS_BITS)
        if index == len(self.keys):
            return None
        while index + 1 < len(self.keys) and (
            _reach(self.blocks[index + 1]) < _reach(self.blocks[index])
        ):
            index += 1
        del self.keys[index]
        return self.blocks.pop(index)

    def extend(self, size: int, room: int) -> Block | None:
        """Return a block of at least `size` at the lowest address where one can be made.

        None if the pages need more than `room`; pages mapped until then stay mapped, as in
        `try_allocate_expandable_block`.
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
            join_before(block.prev, block)
        if block.next is not None and not block.next.mapped:
            self.unmapped.remove(block.next)
            join_after(block, block.next)

    def _put_unmapped(self, block: Block) -> None:
        insort(self.unmapped, block, key=attrgetter("address"))


def _round_up(size: int, unit: int) -> int:
    return (size + unit - 1) // unit * unit


def _reach(block: Block) -> int:
    after = block.next
    return block.size if after is None or after.mapped else block.size + after.size


def _available(block: Block | None, size: int) -> bool:
    while size > 0 and block is not None and (block.free or not block.mapped):
        size -= block.size
        block = block.next
    return size <= 0
