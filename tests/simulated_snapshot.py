"""Snapshots in torch's format, written by the simulated allocator: what a card would have recorded.

The fields are those of `torch.cuda.memory._snapshot` (torch/csrc/cuda/memory_snapshot.cpp); `since` chooses
those of an older version.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ftbench.prediction.simulate.allocator import CachingAllocator
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.expandable_segments import ExpandablePool
from ftbench.prediction.simulate.segments import SMALL_SIZE, Block, SegmentPool
from ftbench.records.predicted_allocations import PredictedAllocations

OLDEST, TODAY = (2, 4), (2, 13)
_POOL_BITS = 49  # each simulated pool counts addresses for itself
_STREAM = 0x5581_0000_0000
TRAIN = "/home/user/project/train.py"
RELEASES = 99  # its line that releases
_TORCH = "/opt/env/lib/python3.11/site-packages/torch/nn/modules/linear.py"


def stack(source: str, function: str = "step") -> list[dict[str, Any]]:
    """Return the stack that torch records of a line `file:line`: its own frames first; [] of an empty source."""
    if not source:
        return []
    file, _, line = source.rpartition(":")
    return [
        {"name": "at::native::empty_cuda(...)", "filename": "??", "line": 0},
        {"name": "forward", "filename": _TORCH, "line": 125},
        {"name": function, "filename": file, "line": int(line)},
        {"name": "<module>", "filename": TRAIN, "line": 1},
    ]


class Recorder:
    """An allocator of one device that records what torch would."""

    def __init__(
        self,
        *,
        expandable: bool = False,
        since: tuple[int, int] = TODAY,
        device: int = 0,
        capacity: int | None = None,
    ) -> None:
        settings = AllocatorSettings(capacity, expandable_segments=expandable)
        self._allocator = CachingAllocator(settings)
        self._expandable, self._since, self._device = expandable, since, device
        self._live: dict[Any, Block] = {}
        self._stacks: dict[Block, list[dict[str, Any]]] = {}
        self._waiting: set[Block] = set()
        self._streams: dict[SegmentPool, int] = {}
        self._pools: dict[SegmentPool, int] = {}
        self._clock = itertools.count(1_700_000_000_000_000)
        self.private: set[SegmentPool] = set()
        self.events: list[dict[str, Any]] = []

    @property
    def allocator(self) -> CachingAllocator:
        return self._allocator

    def alloc(
        self,
        name: Any,
        nbytes: int,
        *,
        stream: int = 0,
        source: str = "",
        frames: list[dict[str, Any]] | None = None,
    ) -> None:
        frames = stack(source) if frames is None else frames
        before = self._mapped()
        block = self._allocator.malloc(nbytes, stream)
        assert block is not None
        self._pools.setdefault(block.pool, len(self._pools) + 1)
        self._streams[block.pool] = stream
        self._note_growth(block.pool, before.get(block.pool, 0), stream, frames)
        self._live[name], self._stacks[block] = block, frames
        self._record("alloc", self._address(block), nbytes, stream, frames)

    def free(self, name: Any, *, completed: bool = True) -> None:
        block = self._live[name]
        frames = stack(f"{TRAIN}:{RELEASES}", "drop")  # with context="all", that of the release
        where = self._address(block), block.requested, self._streams[block.pool], frames
        self._record("free_requested", *where)
        if completed:
            self._record("free_completed", *where)
            del self._live[name]
            self._allocator.free(block)
        else:
            self._waiting.add(block)
            self._allocator.free(block, reusable=False)

    def complete(self, name: Any) -> None:
        block = self._live.pop(name)
        self._waiting.discard(block)
        where = self._address(block), block.requested, self._streams[block.pool]
        self._record("free_completed", *where, stack(f"{TRAIN}:{RELEASES}", "drop"))
        self._allocator.reuse(block)

    def out_of_memory(self, nbytes: int, device_free: int, source: str) -> None:
        self._record("oom", device_free, nbytes, 0, stack(source))

    def begin_recording(self) -> None:
        """Forget the events so far, as if the history began here."""
        self.events.clear()

    def keep_last(self, number: int) -> None:
        """Keep the last events only, as the ring buffer of `max_entries` does."""
        del self.events[:-number]

    def segments(self) -> list[dict[str, Any]]:
        """Return the segments as they are now."""
        heads = {self._head(block) for block in self._blocks()}
        found = [one for head in heads for one in self._segments_from(head)]
        return sorted(found, key=lambda one: one["address"])

    def _blocks(self) -> Iterator[Block]:
        yield from self._live.values()
        for pool in self._pools:
            yield from pool.blocks

    def _head(self, block: Block) -> Block:
        while block.prev is not None and block.prev.mapped:
            block = block.prev
        return block

    def _segments_from(self, head: Block) -> Iterator[dict[str, Any]]:
        blocks, block = [], head
        at: Block | None = head
        while at is not None and at.mapped:
            blocks.append(at)
            at = at.next
        pool, live = block.pool, [b for b in blocks if not b.free]
        size = sum(b.size for b in blocks)
        yield {
            "device": self._device,
            "address": self._address(head),
            "total_size": size,
            "allocated_size": sum(b.size for b in live if b not in self._waiting),
            "active_size": sum(b.size for b in live),
            "requested_size": sum(b.requested for b in live),
            "stream": _pointer(self._streams[pool]),
            "segment_type": "small" if size == 2 << 20 or size < SMALL_SIZE else "large",
            "segment_pool_id": (0, 1) if pool in self.private else (0, 0),
            "is_expandable": self._expandable,
            "frames": [],
            "blocks": [self._block(one) for one in blocks],
        }

    def _block(self, block: Block) -> dict[str, Any]:
        state = "inactive" if block.free else "active_allocated"
        return {
            "address": self._address(block),
            "size": block.size,
            "requested_size": 0 if block.free else block.requested,
            "state": "active_pending_free" if block in self._waiting else state,
            "frames": [] if block.free else self._stacks.get(block, []),
        }

    def _mapped(self) -> dict[SegmentPool, int]:
        return {pool: pool.reserved for pool in self._pools}

    def _note_growth(
        self, pool: SegmentPool, before: int, stream: int, frames: list[dict[str, Any]]
    ) -> None:
        grown = pool.reserved - before
        if not grown:
            return
        base = self._pools[pool] << _POOL_BITS
        if isinstance(pool, ExpandablePool):  # nothing is ever unmapped here: memory grows upwards
            self._record("segment_map", base + before, grown, stream, frames)
        else:
            self._record("segment_alloc", base + pool._next_address, grown, stream, frames)

    def _address(self, block: Block) -> int:
        return (self._pools[block.pool] << _POOL_BITS) + block.address

    def _record(
        self, action: str, address: int, nbytes: int, stream: int, frames: list[dict[str, Any]]
    ) -> None:
        event: dict[str, Any] = {
            "action": action,
            "device_free" if action == "oom" else "addr": address,
            "size": nbytes,
            "stream": _pointer(stream),
            "time_us": next(self._clock),
        }
        if self._since >= (2, 5):
            event["compile_context"] = "N/A"
        if self._since >= (2, 9):
            event |= {"user_metadata": "", "pool_id": (0, 0)}
        self.events.append(event | {"frames": frames})


def _pointer(stream: int) -> int:
    return _STREAM + 0x100 * stream if stream else 0


def snapshot_of(
    *recorders: Recorder, since: tuple[int, int] = TODAY, expandable: bool = False
) -> dict[str, Any]:
    """Return what `torch.cuda.memory._snapshot` would of these devices."""
    found: dict[str, Any] = {
        "segments": [one for recorder in recorders for one in recorder.segments()],
        "device_traces": [list(recorder.events) for recorder in recorders],
        "allocator_settings": {
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True" if expandable else "",
            "max_split_size": -1,
            "garbage_collection_threshold": 0.0,
            "expandable_segments": expandable,
            "pinned_num_register_threads": 1,
            "release_lock_on_cudamalloc": False,
            "pinned_use_cuda_host_register": False,
            "roundup_power2_divisions": {str(1 << n): 0 for n in range(16)},
        },
    }
    if since >= (2, 6):
        found["external_annotations"] = []
    return found


@dataclasses.dataclass(frozen=True)
class Act:
    """An allocation, or a release, of the block of a name."""

    name: Any
    nbytes: int = 0
    stream: int = 0
    source: str = ""
    frees: bool = False


def acts_of(allocations: PredictedAllocations) -> list[Act]:
    """Return a prediction's allocations and releases, in order; a name is the row of an allocation."""
    frees: dict[int, list[int]] = {}
    for row, end in enumerate(allocations.ended):
        frees.setdefault(end, []).append(row)
    found = []
    for row, nbytes in enumerate(allocations.nbytes):
        found += [Act(name, frees=True) for name in frees.get(row, ())]
        source = allocations.part(row).source
        found.append(Act(row, nbytes, allocations.streams[row], source and f"/home/user/{source}"))
    found += [Act(name, frees=True) for name in frees.get(len(allocations.nbytes), ())]
    return found


def record(acts: Iterable[Act], recorder: Recorder | None = None) -> Recorder:
    """Return the recorder after these acts."""
    recorder = recorder or Recorder()
    for act in acts:
        if act.frees:
            recorder.free(act.name)
        else:
            recorder.alloc(act.name, act.nbytes, stream=act.stream, source=act.source)
    return recorder


def written(data: Any, file: Path, protocol: int = 4) -> Path:
    """Write data as `torch.cuda.memory._dump_snapshot` does, and return the file."""
    with file.open("wb") as stream:
        pickle.dump(data, stream, protocol=protocol)
    return file
