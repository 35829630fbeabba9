"""Events are played to the allocator's own figures, whether the recording has the beginning or not."""

import random

import pytest

from ftbench.snapshot.history import History, history_of
from tests.simulated_snapshot import Recorder
from tests.unit.snapshot.made import read

MIB = 1 << 20


def _played(recorder: Recorder) -> History:
    found = read(recorder)
    memory = found.devices[0]
    return history_of(memory, expandable=found.expandable(memory))


def _random_run(seed: int, *, expandable: bool, recorder: Recorder | None = None) -> Recorder:
    """Return a run of random requests on two streams, of which some blocks are still used when they are freed."""
    dice = random.Random(seed)
    recorder = recorder or Recorder(expandable=expandable)
    live, waiting = [], []
    for name in range(400):
        size = dice.choice([1, 512, 70_000, 900_000, 1_500_000, 9 * MIB, 30 * MIB + 3])
        recorder.alloc((seed, name), size + dice.randrange(3000), stream=dice.randrange(2))
        live.append((seed, name))
        while len(live) > 25 or (live and dice.random() < 0.4):
            gone = live.pop(dice.randrange(len(live)))
            completed = dice.random() < 0.8
            recorder.free(gone, completed=completed)
            if not completed:
                waiting.append(gone)
        if waiting and dice.random() < 0.3:
            recorder.complete(waiting.pop(0))
    return recorder


@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_peaks_are_those_of_the_allocator_to_the_byte(seed: int, *, expandable: bool) -> None:
    recorder = _random_run(seed, expandable=expandable)
    found, allocator = _played(recorder), recorder.allocator
    assert found.unexplained == 0
    assert found.whole
    assert found.peaks[:2] == (allocator.peak_requested, allocator.peak_allocated)
    assert found.peaks.reserved == allocator.peak_reserved
    assert found.at_end[:2] == (allocator.requested, allocator.allocated)
    assert found.at_end.reserved == allocator.reserved
    assert found.peaks.active >= found.peaks.allocated
    assert len(found.rows) == 400


@pytest.mark.parametrize("expandable", [False, True])
def test_a_recording_that_begins_later_has_the_blocks_from_before(*, expandable: bool) -> None:
    recorder = Recorder(expandable=expandable)
    recorder.alloc("stays", 3 * MIB + 5, source="/x/model.py:1")
    recorder.alloc("goes", 700)
    recorder.alloc("cached", 12 * MIB)
    recorder.free("cached")
    recorder.begin_recording()
    reserved = recorder.allocator.reserved
    recorder.alloc("new", 2 * MIB)
    recorder.free("goes")
    found = _played(recorder)
    assert [(one.nbytes, one.ended) for one in found.earlier] == [(700, 1), (3 * MIB + 5, -1)]
    assert [one.frame.source for one in found.earlier] == ["", "/x/model.py:1"]
    assert found.peaks.requested == 3 * MIB + 5 + 700 + 2 * MIB
    assert (found.rows.requested, found.at_end.reserved) == ([found.peaks.requested], reserved)
    assert found.unexplained == 0


@pytest.mark.parametrize("expandable", [False, True])
def test_a_ring_buffer_ends_with_the_same_figures(*, expandable: bool) -> None:
    recorder = _random_run(7, expandable=expandable)
    whole = _played(recorder)
    recorder.keep_last(300)
    found = _played(recorder)
    assert not found.whole
    assert found.at_end == whole.at_end
    assert found.unexplained == 0


def test_a_block_that_another_stream_uses_is_active_until_its_release_is_completed() -> None:
    recorder = Recorder()
    recorder.alloc("a", 4 * MIB)
    recorder.alloc("b", 3 * MIB)
    recorder.free("a", completed=False)
    recorder.alloc("c", 2 * MIB)
    found = _played(recorder)
    assert found.at_end[:3] == (5 * MIB, 5 * MIB, 9 * MIB)
    assert found.rows.ended == [2, -1, -1]
    recorder.complete("a")
    assert _played(recorder).at_end[:3] == (5 * MIB, 5 * MIB, 5 * MIB)


def test_releases_that_were_not_recorded_are_counted() -> None:
    recorder = Recorder()
    for name in range(5):
        recorder.alloc(name, 4 * MIB)
        recorder.free(name)
    recorder.events = [e for e in recorder.events if not e["action"].startswith("free")]
    found = _played(recorder)
    assert found.frees_missing == 4
    assert found.rows.ended == [1, 2, 3, 4, -1]


@pytest.mark.parametrize("left_out", ["free_requested", "free_completed"])
def test_one_of_a_releases_two_events_is_enough(left_out: str) -> None:
    recorder = _random_run(3, expandable=False)
    for name in [name for name, block in recorder._live.items() if block in recorder._waiting]:
        recorder.complete(name)
    whole = _played(recorder)
    recorder.events = [e for e in recorder.events if e["action"] != left_out]
    found = _played(recorder)
    assert found.frees_missing == 0
    assert found.at_end == whole.at_end


def test_an_out_of_memory_error_has_its_place_its_bytes_and_its_line() -> None:
    recorder = Recorder()
    recorder.alloc("a", 4 * MIB)
    recorder.out_of_memory(6 * MIB, 2 * MIB, "/x/train.py:9")
    (found,) = _played(recorder).out_of_memory
    assert (found.row, found.nbytes, found.device_free) == (1, 6 * MIB, 2 * MIB)
    assert found.frame.source == "/x/train.py:9"


def test_private_pools_are_counted() -> None:
    recorder = Recorder()
    recorder.alloc("usual", 4 * MIB)
    recorder.alloc("graph", 4 * MIB, stream=1)
    recorder.private.add(recorder._live["graph"].pool)
    found = _played(recorder)
    assert (found.private_rows, found.private_bytes) == (1, 20 * MIB)


def test_streams_are_numbered_by_their_first_use() -> None:
    recorder = Recorder()
    for name, stream in enumerate([5, 0, 3, 5]):
        recorder.alloc(name, 1000, stream=stream)
    assert _played(recorder).rows.streams == [1, 0, 2, 1]


@pytest.mark.parametrize(
    ("nbytes", "block"), [(19 * MIB, 20 * MIB), (19 * MIB - 512, 19 * MIB - 512)]
)
def test_a_rest_of_a_mebibyte_is_too_small_to_split_off(nbytes: int, block: int) -> None:
    recorder = Recorder()
    recorder.alloc("a", nbytes)
    recorder.free("a")
    found = _played(recorder)
    assert found.peaks[:3] == (nbytes, block, block)
    assert found.peaks.allocated == recorder.allocator.peak_allocated
