"""History: the events of a snapshot, played from the beginning of the recording to its end.

The state before the first event follows from the segments at the end, by undoing the events. Then the events
are played in order. A block's size with rounding is in no event, but follows from the addresses: it is cut from
the free memory that begins there, which ends at the next block or at the end of the segment, and takes all of
it if the rest is too small (`should_split` in c10/cuda/CUDACachingAllocator.cpp).
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Literal, NamedTuple

from ftbench.base.units import MIB
from ftbench.snapshot.frames import NO_FRAME, Frame
from ftbench.snapshot.regions import Regions
from ftbench.snapshot.snapshot_file import (
    ALLOC,
    FREE_COMPLETED,
    FREE_REQUESTED,
    NO_POOL,
    OOM,
    SEGMENT_ALLOC,
    SEGMENT_FREE,
    SEGMENT_MAP,
    SEGMENT_UNMAP,
    DeviceMemory,
    Event,
)

_MIN_BLOCK = 512  # kMinBlockSize
_SMALL = 1 * MIB  # kSmallSize
FigureName = Literal["requested", "allocated", "active", "reserved"]
FIGURES: tuple[FigureName, ...] = ("requested", "allocated", "active", "reserved")


class Level(NamedTuple):
    """The four figures of torch's memory statistics at a moment, in bytes."""

    requested: int
    allocated: int
    active: int
    reserved: int


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A request that failed: the rows before it, its bytes, and the bytes that the card still had."""

    row: int
    nbytes: int
    device_free: int
    frame: Frame


@dataclasses.dataclass
class Rows:
    """Allocations in order, one entry per allocation in each column.

    `nbytes` are requested bytes; `streams` are numbers, 0 for the default stream and others by their first use;
    `ended` is the number of allocations before the release, -1 without one; `requested` is what is live after each.
    """

    nbytes: list[int] = dataclasses.field(default_factory=list)
    streams: list[int] = dataclasses.field(default_factory=list)
    ended: list[int] = dataclasses.field(default_factory=list)
    frames: list[Frame] = dataclasses.field(default_factory=list)
    requested: list[int] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of allocations."""
        return len(self.nbytes)


class Earlier(NamedTuple):
    """A block that was allocated before the recording: requested bytes, and `ended` as in `Rows`."""

    nbytes: int
    ended: int
    frame: Frame


@dataclasses.dataclass(frozen=True)
class History:
    """The played events of a device.

    `earlier` are the blocks from before the recording. `peaks` are the largest values of each figure by itself,
    and `at_end` those at the snapshot. `unexplained` counts blocks of the segments whose size differs from the
    played one: 0 if `allocated` is exact. `frees_missing` counts addresses that were allocated twice without a
    release. `private_bytes` are reserved for private pools, such as those of CUDA graphs, at the end;
    `private_rows` is how many allocations were in one.
    """

    rows: Rows
    earlier: tuple[Earlier, ...]
    peaks: Level
    at_end: Level
    out_of_memory: tuple[OutOfMemory, ...]
    unexplained: int
    frees_missing: int
    private_bytes: int
    private_rows: int

    @property
    def whole(self) -> bool:
        """Whether nothing was allocated before the recording."""
        return not self.earlier


def history_of(memory: DeviceMemory, *, expandable: bool = False) -> History:
    """Return the played events of a device; `expandable` says whether its segments are."""
    return _Player(memory, expandable=expandable).play()


@dataclasses.dataclass
class _Live:
    """A block that is live: its bytes, its row (-1 if it is from before), and whether its release is requested."""

    nbytes: int
    requested: int
    row: int
    waiting: bool = False


class _Player:
    """Plays events, and keeps what is live at each."""

    def __init__(self, memory: DeviceMemory, *, expandable: bool) -> None:
        self._memory = memory
        self._rows = Rows()
        self._live: dict[int, _Live] = {}
        self._addresses: list[int] = []  # of live blocks, sorted
        self._earlier: list[Earlier] = []
        self._numbers: dict[int, int] = {0: 0}  # of streams
        self._regions = Regions()
        self._requested = self._allocated = self._active = 0
        self._peaks = [0, 0, 0, 0]
        self._failures: list[OutOfMemory] = []
        self._frees_missing = self._private_rows = 0
        self._private = Regions()
        for segment in memory.segments:
            if segment.pool != NO_POOL:
                self._private.add(segment.address, segment.nbytes, joins=False)
        # `_record_memory_history(skip_actions=...)` can leave out any action.
        self._completions = any(event.action == FREE_COMPLETED for event in memory.events) or any(
            block.live and not block.allocated
            for segment in memory.segments
            for block in segment.blocks
        )
        self._expandable = expandable

    def play(self) -> History:
        self._begin()
        acts = {
            ALLOC: self._alloc,
            FREE_REQUESTED: self._free_requested,
            FREE_COMPLETED: self._free_completed,
            SEGMENT_ALLOC: self._add,
            SEGMENT_MAP: self._add,
            SEGMENT_FREE: self._remove,
            SEGMENT_UNMAP: self._remove,
            OOM: self._fail,
        }
        self._note()
        for event in self._memory.events:
            act = acts.get(event.action)
            if act is not None:
                act(event)
        return History(
            rows=self._rows,
            earlier=tuple(self._earlier),
            peaks=Level(*self._peaks),
            at_end=self._level(),
            out_of_memory=tuple(self._failures),
            unexplained=self._unexplained(),
            frees_missing=self._frees_missing,
            private_bytes=self._private.nbytes,
            private_rows=self._private_rows,
        )

    def _begin(self) -> None:
        """Set the state before the first event: what is there at the end, less what the events made."""
        for segment in self._memory.segments:
            self._regions.add(segment.address, segment.nbytes, joins=segment.expandable)
        for event in reversed(self._memory.events):
            if event.action in (SEGMENT_ALLOC, SEGMENT_MAP):
                self._regions.remove(event.address, event.nbytes)
            elif event.action in (SEGMENT_FREE, SEGMENT_UNMAP):
                joins = event.action == SEGMENT_UNMAP
                self._regions.add(event.address, event.nbytes, joins=joins)
        for address, nbytes, requested, frame in _blocks_before(self._memory):
            self._put(address, _Live(nbytes, requested, -len(self._earlier) - 1))
            self._earlier.append(Earlier(requested, -1, frame))

    def _alloc(self, event: Event) -> None:
        row = len(self._rows)
        before = self._live.get(event.address)
        if before is not None:
            if not before.waiting:
                self._frees_missing += 1
                self._end(before)
            self._drop(event.address)
        stream = self._numbers.setdefault(event.stream, len(self._numbers))
        self._rows.nbytes.append(event.nbytes)
        self._rows.streams.append(stream)
        self._rows.ended.append(-1)
        self._rows.frames.append(event.frame)
        self._put(event.address, _Live(self._block_bytes(event), event.nbytes, row))
        self._rows.requested.append(self._requested)
        self._private_rows += self._is_private(event)
        self._note()

    def _is_private(self, event: Event) -> bool:
        return event.pool != NO_POOL or self._private.end_at(event.address) is not None

    def _block_bytes(self, event: Event) -> int:
        """Return the bytes of the block that a request gets."""
        rounded = max((event.nbytes + _MIN_BLOCK - 1) // _MIN_BLOCK, 1) * _MIN_BLOCK
        end = self._regions.end_at(event.address)
        if end is None:
            return rounded
        after = bisect_left(self._addresses, event.address)
        if after < len(self._addresses):
            end = min(end, self._addresses[after])
        small = self._expandable or rounded <= _SMALL
        rest = end - event.address - rounded
        return rounded if rest >= (_MIN_BLOCK if small else _SMALL + 1) else rounded + max(rest, 0)

    def _free_requested(self, event: Event) -> None:
        live = self._live.get(event.address)
        if live is not None and not live.waiting:
            self._end(live)
            if not self._completions:
                self._drop(event.address)

    def _free_completed(self, event: Event) -> None:
        live = self._live.get(event.address)
        if live is None:
            return
        if not live.waiting:
            self._end(live)
        self._drop(event.address)

    def _add(self, event: Event) -> None:
        joins = event.action == SEGMENT_MAP
        self._regions.add(event.address, event.nbytes, joins=joins)
        self._note()

    def _remove(self, event: Event) -> None:
        self._regions.remove(event.address, event.nbytes)

    def _fail(self, event: Event) -> None:
        failure = OutOfMemory(len(self._rows), event.nbytes, event.address, event.frame)
        self._failures.append(failure)

    def _put(self, address: int, live: _Live) -> None:
        self._live[address] = live
        insort(self._addresses, address)
        self._requested += live.requested
        self._allocated += live.nbytes
        self._active += live.nbytes

    def _end(self, live: _Live) -> None:
        live.waiting = True
        self._requested -= live.requested
        self._allocated -= live.nbytes
        count = len(self._rows)
        if live.row >= 0:
            self._rows.ended[live.row] = count
        else:
            place = -live.row - 1
            self._earlier[place] = self._earlier[place]._replace(ended=count)

    def _drop(self, address: int) -> None:
        self._active -= self._live.pop(address).nbytes
        del self._addresses[bisect_left(self._addresses, address)]

    def _level(self) -> Level:
        return Level(self._requested, self._allocated, self._active, self._regions.nbytes)

    def _note(self) -> None:
        now, peaks = self._level(), self._peaks
        for place, value in enumerate(now):
            if value > peaks[place]:
                peaks[place] = value

    def _unexplained(self) -> int:
        """Return how many live blocks of the segments have another size than the played one."""
        blocks = (b for segment in self._memory.segments for b in segment.blocks if b.live)
        found = ((block, self._live.get(block.address)) for block in blocks)
        return sum(live is None or live.nbytes != block.nbytes for block, live in found)


def _blocks_before(memory: DeviceMemory) -> Iterable[tuple[int, int, int, Frame]]:
    """Yield (address, bytes, requested bytes, frame) of the blocks that were live before the first event.

    The stack of a release is that of the code that released: which line allocated its block is not known.
    They are those released first, and those of the segments that no event allocated. Of a block that was released,
    the bytes with rounding are not in the file: the least that they can be is taken.
    """
    made: set[int] = set()
    gone: set[int] = set()
    for event in memory.events:
        if event.action == ALLOC:
            made.add(event.address)
        elif event.action in (FREE_REQUESTED, FREE_COMPLETED) and not (
            event.address in made or event.address in gone
        ):
            gone.add(event.address)
            rounded = (event.nbytes + _MIN_BLOCK - 1) // _MIN_BLOCK * _MIN_BLOCK
            yield event.address, rounded, event.nbytes, NO_FRAME
    for segment in memory.segments:
        for block in segment.blocks:
            if block.live and block.address not in made:
                yield block.address, block.nbytes, block.requested, block.frame
