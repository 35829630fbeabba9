"""The snapshot that torch writes: its events and segments, by device. Plain data.

The format is that of `torch.cuda.memory._snapshot` (its docstring; torch/csrc/cuda/memory_snapshot.cpp), from torch
2.4 on. Later versions added fields (`compile_context`, `user_metadata`, `pool_id`, `external_annotations`); unknown
ones are ignored. The size of `alloc`, `free_requested` and `free_completed` is the one that was requested, without
rounding (`alloc_found_block` and `free` in c10/cuda/CUDACachingAllocator.cpp record `orig_size` and
`requested_size`); that of segments is what the driver gave, and that of `oom` is rounded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ftbench.base.errors import SnapshotError
from ftbench.base.text import printable
from ftbench.snapshot.frames import NO_FRAME, Frame, frame_of
from ftbench.snapshot.plain_data import read_plain

ALLOC, FREE_REQUESTED, FREE_COMPLETED = "alloc", "free_requested", "free_completed"
SEGMENT_ALLOC, SEGMENT_FREE = "segment_alloc", "segment_free"
SEGMENT_MAP, SEGMENT_UNMAP = "segment_map", "segment_unmap"
OOM = "oom"
PoolId = tuple[int, int]
NO_POOL: PoolId = (0, 0)
_MOST_DEVICES = 4096
_MOST_BYTES = 1 << 48  # of an allocation or a segment: what a pointer of CUDA can name
_MOST_SHOWN = 200  # characters of a setting


class Event(NamedTuple):
    """One action of the allocator. `address` is the free memory of the card for `OOM`; sizes are in bytes."""

    action: str
    address: int
    nbytes: int
    stream: int
    frame: Frame
    pool: PoolId


class Block(NamedTuple):
    """A piece of a segment: `nbytes` with rounding, `requested` without. `live` until its free is completed."""

    address: int
    nbytes: int
    requested: int
    live: bool
    allocated: bool
    frame: Frame


@dataclasses.dataclass(frozen=True)
class Segment:
    """Memory that the allocator has from the driver, in bytes. `pool` is not `NO_POOL` if it is private."""

    address: int
    nbytes: int
    stream: int
    expandable: bool
    pool: PoolId
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """The recorded events of a device, oldest first, and its segments at the time of the snapshot."""

    events: tuple[Event, ...]
    segments: tuple[Segment, ...]

    @property
    def used(self) -> bool:
        """Whether there is anything of this device."""
        return bool(self.events or self.segments)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A snapshot: each device by its number, and the settings of the allocator that are not the default ones.

    `has_events` and `has_segments` say whether the file has the parts at all.
    """

    devices: Mapping[int, DeviceMemory]
    settings: Mapping[str, str]
    has_events: bool
    has_segments: bool

    def expandable(self, memory: DeviceMemory) -> bool:
        """Return whether a device's segments are expandable: by the settings, the segments or the events."""
        return (
            self.settings.get("expandable_segments") == "True"
            or any(segment.expandable for segment in memory.segments)
            or any(event.action == SEGMENT_MAP for event in memory.events)
        )

    def device(self, number: int | None, where: str) -> tuple[int, DeviceMemory]:
        """Return a device by its number, or the only one that has events; raises SnapshotError."""
        used = {n: one for n, one in self.devices.items() if one.used}
        if number is not None:
            if number in used:
                return number, used[number]
            raise SnapshotError(
                "no such device in the snapshot",
                where=where,
                got=str(number),
                expected=_numbers(used) or "none has events",
            )
        busy = {n: one for n, one in used.items() if one.events} or used
        if len(busy) == 1:
            return next(iter(busy.items()))
        if not busy:
            raise SnapshotError(
                "an empty snapshot: neither events nor segments",
                where=where,
                hint="call torch.cuda.memory._record_memory_history() before the run",
            )
        raise SnapshotError(
            "events of several devices", where=where, got=_numbers(busy), hint="choose by --device"
        )


def _numbers(devices: Mapping[int, DeviceMemory]) -> str:
    return ", ".join(map(str, sorted(devices)))


def read_snapshot(file: Path) -> Snapshot:
    """Return the snapshot in a file of `_dump_snapshot`, or in one of JSON; raises SnapshotError.

    A list of segments alone (`torch.cuda.memory_snapshot`) is one without events.
    """
    with _collector_off():
        return _Reader(str(file)).snapshot(read_plain(file))


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Turn Python's collector of cycles off: among a million new objects without any, it takes half of the time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


class _Reader:
    """Reads the parts of a snapshot; a part that is not as torch writes it raises SnapshotError with its place."""

    def __init__(self, where: str) -> None:
        self._where = where
        # torch gives all events of one stack the same list, which a pickle keeps.
        self._frames: dict[int, Frame] = {}

    def snapshot(self, data: object) -> Snapshot:
        fields = {"segments": data} if isinstance(data, list) else data
        if not isinstance(fields, dict) or not {"segments", "device_traces"} & fields.keys():
            raise SnapshotError(
                "not a snapshot of memory",
                where=self._where,
                got=_kind(fields),
                expected="a dictionary with 'segments' and 'device_traces'",
            )
        segments: dict[int, list[Segment]] = {}
        for number, one in enumerate(self._list(fields.get("segments", []), "segments")):
            entry = self._dict(one, f"segments[{number}]")
            device = self._int(entry, "device", f"segments[{number}]", 0)
            segments.setdefault(device, []).append(self._segment(entry, f"segments[{number}]"))
        traces = self._list(fields.get("device_traces", []), "device_traces")
        if len(traces) > _MOST_DEVICES:
            raise self._refused("device_traces", f"{len(traces)} devices")
        events = {
            device: tuple(self._events(trace, f"device_traces[{device}]"))
            for device, trace in enumerate(traces)
        }
        return Snapshot(
            devices={
                device: DeviceMemory(events.get(device, ()), tuple(segments.get(device, ())))
                for device in sorted({*events, *segments})
            },
            settings=_settings(fields.get("allocator_settings")),
            has_events="device_traces" in fields,
            has_segments="segments" in fields,
        )

    def _events(self, trace: object, place: str) -> Iterator[Event]:
        for number, one in enumerate(self._list(trace, place)):
            entry = self._dict(one, f"{place}[{number}]")
            action = entry.get("action")
            if not isinstance(action, str):
                raise self._refused(f"{place}[{number}].action", _kind(action))
            where = f"{place}[{number}]"
            address = "device_free" if action == OOM else "addr"
            known = action in _SIZED
            yield Event(
                action,
                self._int(entry, address, where, None if known and action != OOM else 0),
                self._size(entry, "size", where, None if known else 0, any_number=action == OOM),
                self._int(entry, "stream", where, 0),
                self._frame(entry.get("frames")),
                _pool(entry.get("pool_id")),
            )

    def _segment(self, entry: dict[object, object], place: str) -> Segment:
        address = self._int(entry, "address", place)
        blocks, at = [], address
        for number, one in enumerate(self._list(entry.get("blocks", []), f"{place}.blocks")):
            where = f"{place}.blocks[{number}]"
            block = self._dict(one, where)
            nbytes = self._size(block, "size", where)
            state = str(block.get("state", ""))
            blocks.append(
                Block(
                    address=self._int(block, "address", where, at),
                    nbytes=nbytes,
                    requested=self._size(block, "requested_size", where, nbytes),
                    live=state.startswith("active"),
                    allocated=state == "active_allocated",
                    frame=self._frame(block.get("frames")),
                )
            )
            at += nbytes
        return Segment(
            address=address,
            nbytes=self._size(entry, "total_size", place),
            stream=self._int(entry, "stream", place, 0),
            expandable=bool(entry.get("is_expandable", False)),
            pool=_pool(entry.get("segment_pool_id")),
            blocks=tuple(blocks),
        )

    def _frame(self, stack: object) -> Frame:
        if not stack:
            return NO_FRAME
        found = self._frames.get(id(stack))
        if found is None:
            found = self._frames[id(stack)] = frame_of(stack)
        return found

    def _list(self, value: object, place: str) -> list[object]:
        if isinstance(value, (list, tuple)):
            return list(value)
        raise self._refused(place, _kind(value), "a list")

    def _dict(self, value: object, place: str) -> dict[object, object]:
        if isinstance(value, dict):
            return value
        raise self._refused(place, _kind(value), "a dictionary")

    def _int(
        self, entry: dict[object, object], name: str, place: str, default: int | None = None
    ) -> int:
        value = entry.get(name, default)
        if type(value) is int and -(1 << 63) <= value < 1 << 64:
            return value
        got = "nothing" if value is None else _kind(value)
        raise self._refused(f"{place}.{name}", got, "a whole number")

    def _size(
        self,
        entry: dict[object, object],
        name: str,
        place: str,
        default: int | None = None,
        *,
        any_number: bool = False,
    ) -> int:
        """Return a number of bytes that a card can have; of a request that failed, `any_number`."""
        value = self._int(entry, name, place, default)
        if any_number or 0 <= value <= _MOST_BYTES:
            return value
        raise self._refused(f"{place}.{name}", str(value), "a number of bytes")

    def _refused(self, place: str, got: str, expected: str | None = None) -> SnapshotError:
        return SnapshotError(
            "not as torch writes it", where=f"{self._where}: {place}", got=got, expected=expected
        )


# Actions whose address and size are needed.
_SIZED = {
    ALLOC,
    FREE_REQUESTED,
    FREE_COMPLETED,
    SEGMENT_ALLOC,
    SEGMENT_FREE,
    SEGMENT_MAP,
    SEGMENT_UNMAP,
    OOM,
}


def _kind(value: object) -> str:
    """Return a value as an error shows it: short ones themselves, others by their type."""
    short = isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 128)
    return f"{value!r:.60}" if short or isinstance(value, str) else type(value).__name__


def _pool(value: object) -> PoolId:
    """Return the id of a pool, a pair of numbers; JSON has a list for a tuple."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(n) is int for n in value):
        return value[0], value[1]
    return NO_POOL


# The values of settings that are torch's default, by name (`SnapshotInfo.config_metadata`).
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "PYTORCH_CUDA_ALLOC_CONF": ("",),
    "max_split_size": (-1, (1 << 64) - 1, (1 << 63) - 1),
    "garbage_collection_threshold": (0, 0.0),
    "expandable_segments": (False,),
}


def _settings(value: object) -> dict[str, str]:
    """Return the settings that move memory and are not torch's default."""
    if not isinstance(value, dict):
        return {}
    found = {
        name: _told(value[name])
        for name, defaults in _DEFAULTS.items()
        if name in value and value[name] not in defaults
    }
    rounding = value.get("roundup_power2_divisions")
    if isinstance(rounding, dict) and any(rounding.values()):
        found["roundup_power2_divisions"] = _told(
            {name: part if type(part) is int else _kind(part) for name, part in rounding.items()}
        )
    return found


def _told(value: object) -> str:
    """Return a setting as it is shown: a list in it by its type, and no more than a line."""
    told = isinstance(value, (bool, int, float, str, dict))
    return printable(str(value) if told else type(value).__name__)[:_MOST_SHOWN]
