"""The reader takes what torch writes, from 2.4 to today, and names what is not as torch writes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch.cuda import _memory_viz

from ftbench.base.errors import SnapshotError
from ftbench.snapshot.snapshot_file import NO_POOL, Snapshot, _Reader, read_snapshot
from tests.simulated_snapshot import (
    OLDEST,
    RELEASES,
    TODAY,
    TRAIN,
    Recorder,
    snapshot_of,
    written,
)

MIB = 1 << 20


def _nested(depth: int) -> list[object]:
    """Return lists in lists, deeper than Python can write them."""
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def _recorder(
    since: tuple[int, int] = TODAY, *, expandable: bool = False, device: int = 0
) -> Recorder:
    recorder = Recorder(since=since, expandable=expandable, device=device)
    recorder.alloc("a", 3 * MIB + 1, source="/home/me/train.py:7")
    recorder.alloc("b", 700, stream=1)
    recorder.free("a")
    recorder.alloc("c", 5 * MIB)
    return recorder


def _read(data: Any, folder: Path) -> Snapshot:
    return read_snapshot(written(data, folder / "snapshot.pickle"))


@pytest.mark.parametrize("since", [OLDEST, (2, 6), TODAY])
@pytest.mark.parametrize("expandable", [False, True])
def test_what_the_simulator_writes_is_a_snapshot_to_torch_too(
    since: tuple[int, int], *, expandable: bool
) -> None:
    data = snapshot_of(_recorder(since, expandable=expandable), since=since)
    assert "reserved" in _memory_viz.segsum(data)  # it adds up blocks and segments itself
    trace = _memory_viz.trace(data)
    assert trace.startswith("Device 0")
    assert trace.count("cudaMalloc") == (0 if expandable else 2)


@pytest.mark.parametrize("since", [OLDEST, (2, 6), TODAY])
def test_a_snapshot_of_each_version_is_read_alike(since: tuple[int, int], tmp_path: Path) -> None:
    found = _read(snapshot_of(_recorder(since), since=since), tmp_path)
    number, memory = found.device(None, "here")
    assert (number, found.settings, found.has_events, found.has_segments) == (0, {}, True, True)
    told = [(e.action, e.nbytes, e.frame.source) for e in memory.events]
    line = "/home/me/train.py:7"
    assert told == [
        ("segment_alloc", 20 * MIB, line),
        ("alloc", 3 * MIB + 1, line),
        ("segment_alloc", 2 * MIB, ""),
        ("alloc", 700, ""),
        ("free_requested", 3 * MIB + 1, f"{TRAIN}:{RELEASES}"),
        ("free_completed", 3 * MIB + 1, f"{TRAIN}:{RELEASES}"),
        ("alloc", 5 * MIB, ""),
    ]
    assert len({e.stream for e in memory.events}) == 2
    assert sorted(segment.nbytes for segment in memory.segments) == [2 * MIB, 20 * MIB]
    live = [b for segment in memory.segments for b in segment.blocks if b.live]
    assert sorted((b.requested, b.nbytes) for b in live) == [(700, 1024), (5 * MIB, 5 * MIB)]


def test_json_is_read_like_a_pickle(tmp_path: Path) -> None:
    data = snapshot_of(_recorder())
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(data))
    assert read_snapshot(file) == _read(data, tmp_path)


def test_segments_alone_are_a_snapshot_without_events(tmp_path: Path) -> None:
    found = _read(snapshot_of(_recorder())["segments"], tmp_path)
    assert not found.has_events
    assert len(found.device(None, "here")[1].segments) == 2


def test_unknown_fields_and_actions_are_ignored(tmp_path: Path) -> None:
    data = snapshot_of(_recorder())
    plain = _read(data, tmp_path)
    data["a field of tomorrow"] = [{}]
    for one in (*data["segments"], *data["device_traces"][0], *data["segments"][0]["blocks"]):
        one["another"] = {"x": [1]}
    data["device_traces"][0].insert(0, {"action": "compacted"})
    found = _read(data, tmp_path)
    assert found.devices[0].segments == plain.devices[0].segments
    assert found.devices[0].events[1:] == plain.devices[0].events


def test_a_pool_of_its_own_is_read_from_segments_and_from_events(tmp_path: Path) -> None:
    data = snapshot_of(_recorder())
    data["segments"][0]["segment_pool_id"] = [0, 3]
    data["device_traces"][0][1]["pool_id"] = (7, 0)
    memory = _read(data, tmp_path).devices[0]
    assert [segment.pool for segment in memory.segments] == [(0, 3), NO_POOL]
    assert [event.pool for event in memory.events[:3]] == [NO_POOL, (7, 0), NO_POOL]


def test_settings_that_are_not_torchs_default_are_kept(tmp_path: Path) -> None:
    data = snapshot_of(_recorder())
    data["allocator_settings"] |= {
        "max_split_size": 64 * MIB,
        "expandable_segments": True,
        "roundup_power2_divisions": {"1": 4},
    }
    found = _read(data, tmp_path)
    assert found.settings == {
        "max_split_size": str(64 * MIB),
        "expandable_segments": "True",
        "roundup_power2_divisions": "{'1': 4}",
    }
    assert found.expandable(found.devices[0])


@pytest.mark.parametrize(
    "value", [_nested(100_000), "\x1b[2J" + 10_000 * "x"], ids=["nested", "text"]
)
def test_a_setting_of_any_kind_can_be_shown(value: object) -> None:
    data = snapshot_of(_recorder())
    data["allocator_settings"] |= {
        "max_split_size": value,
        "roundup_power2_divisions": {"1": value},
    }
    for shown in _Reader("here").snapshot(data).settings.values():
        assert shown.isprintable()
        assert len(shown) <= 200


def test_of_several_devices_the_only_one_with_events_is_meant(tmp_path: Path) -> None:
    idle, busy = Recorder(), _recorder(device=1)
    found = _read(snapshot_of(idle, busy), tmp_path)
    assert found.device(None, "here")[0] == 1
    with pytest.raises(SnapshotError) as raised:
        found.device(0, "here")
    assert raised.value.expected == "1"
    both = _read(snapshot_of(_recorder(), _recorder(device=1)), tmp_path)
    assert both.device(1, "here")[0] == 1
    with pytest.raises(SnapshotError) as raised:
        both.device(None, "here")
    assert raised.value.got == "0, 1"


def test_a_snapshot_without_anything_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError) as raised:
        _read(snapshot_of(Recorder()), tmp_path).device(None, "here")
    assert "_record_memory_history" in (raised.value.hint or "")


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def _sized(nbytes: int) -> dict[str, Any]:
    return {"device_traces": [[{"action": "alloc", "addr": 1, "size": nbytes}]]}


DAMAGE = {
    "device_traces": lambda data: data | {"device_traces": 7},
    "device_traces[0]": lambda data: data | {"device_traces": [7]},
    "device_traces[0][0]": lambda data: data | {"device_traces": [[7]]},
    "device_traces[0][0].action": lambda data: data | {"device_traces": [[{"action": 7}]]},
    "device_traces[0][0].addr": lambda data: data | {"device_traces": [[{"action": "alloc"}]]},
    "device_traces[0][0].size": lambda data: (
        data | {"device_traces": [[{"action": "alloc", "addr": 1, "size": 1.5}]]}
    ),
    "device_traces[0][0].size ": lambda data: data | _sized(1 << 63),
    "device_traces[0][0].size  ": lambda data: data | _sized(-512),
    "segments[0]": lambda data: data | {"segments": [None]},
    "segments[0].address": lambda data: (
        data | {"segments": [_without(data["segments"][0], "address")]}
    ),
    "segments[0].total_size": lambda data: (
        data | {"segments": [data["segments"][0] | {"total_size": 1 << 9000}]}
    ),
    "segments[0].blocks[0].size": lambda data: (
        data | {"segments": [data["segments"][0] | {"blocks": [{"size": True}]}]}
    ),
}


@pytest.mark.parametrize("place", DAMAGE)
def test_what_is_not_as_torch_writes_it_is_named_by_its_place(place: str, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError) as raised:
        _read(DAMAGE[place](snapshot_of(_recorder())), tmp_path)
    assert (raised.value.where or "").endswith(f": {place.strip()}")


@pytest.mark.parametrize("data", [7, "text", {}, {"model": 1}, None])
def test_another_file_is_no_snapshot(data: object, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError) as raised:
        _read(data, tmp_path)
    assert "device_traces" in (raised.value.expected or "")
