import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.prediction.simulate.allocator import CachingAllocator
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.replay import Replay, replay
from tests.unit.prediction.simulate.streams import MIB, SETTINGS, play, streams, until_out_of_memory


def test_replay_says_where_the_peaks_are():
    signs, names = [1, 1, -1, 1, 1], [7, 8, 7, 9, 7]
    nbytes = [2 * MIB, 4, 2 * MIB, 4, 30 * MIB]
    assert replay(signs, names, nbytes) == Replay(
        peak_requested_bytes=30 * MIB + 8,
        peak_allocated_bytes=30 * MIB + 1024,
        peak_reserved_bytes=52 * MIB,
        retries=0,
        at_allocated=4,
        at_reserved=4,
        failed_at=None,
    )


def test_replay_names_the_first_event_that_reached_a_peak():
    result = replay([1, -1, 1], [0, 0, 0], [4, 4, 4])
    assert (result.at_allocated, result.at_reserved) == (0, 0)


def test_replay_stops_where_memory_runs_out():
    result = replay(
        [1, 1, 1], [0, 1, 2], [20 * MIB] * 3, AllocatorSettings(capacity_bytes=50 * MIB)
    )
    assert result.out_of_memory
    assert (result.failed_at, result.retries, result.peak_reserved_bytes) == (2, 1, 40 * MIB)


@pytest.mark.parametrize("events", [([], [], []), ([1, -1], [0, 0], [0, 0])])
def test_replay_of_nothing(events):
    assert replay(*events) == Replay(0, 0, 0, 0, None, None, None)


def test_replay_takes_arrays():
    events = ([1, 1, -1], [0, 1, 0], [5, 3 * MIB, 5])
    assert replay(*map(np.array, events)) == replay(*events)


@pytest.mark.parametrize(
    ("signs", "names", "complaint"),
    [
        ([-1], [0], "event 0: block 0 is free already"),
        ([1, 1], [3, 3], "event 1: block 3 is allocated already"),
    ],
)
def test_replay_refuses_a_stream_that_contradicts_itself(signs, names, complaint):
    with pytest.raises(ValueError, match=complaint):
        replay(signs, names, [4] * len(signs))


def test_replay_refuses_columns_of_different_lengths():
    with pytest.raises(ValueError, match="shorter"):
        replay([1, 1], [0, 1], [4])


def test_a_retry_makes_the_peak_lower():
    events = ([1, -1, 1, -1, 1], [0, 0, 1, 1, 2], [30 * MIB, 0, 40 * MIB, 0, 50 * MIB])
    assert replay(*events).peak_reserved_bytes == 120 * MIB
    short = replay(*events, AllocatorSettings(capacity_bytes=100 * MIB))
    assert (short.peak_reserved_bytes, short.retries) == (70 * MIB, 1)
    assert short.at_reserved == 2


def test_pages_mapped_before_the_one_that_fails_count():
    # By pages of 20 MiB: AAAB; then C.D. in A's place, C dies, and E (30 MiB) does not fit: a retry
    # unmaps C's page and the last of A's. D dies, and F (60 MiB) begins at the lowest gap: its first
    # page is mapped (100 MiB in all), its third is more than the capacity.
    signs = [1, 1, -1, 1, 1, -1, 1, -1, 1]
    names = [0, 1, 0, 2, 3, 2, 4, 3, 5]
    nbytes = [size * MIB for size in (60, 20, 0, 20, 20, 0, 30, 0, 60)]
    result = replay(
        signs,
        names,
        nbytes,
        AllocatorSettings(capacity_bytes=102 * MIB, expandable_segments=True),
    )
    assert (result.failed_at, result.at_reserved, result.retries) == (8, 8, 2)
    assert result.peak_reserved_bytes == 100 * MIB


@given(streams(), SETTINGS)
@settings(deadline=None)
def test_replay_is_the_allocator_step_by_step(stream, options):
    allocator, steps = CachingAllocator(options), 0
    allocated, reserved = [0], [0]
    for allocator, _ in until_out_of_memory(play(stream, options)):
        steps += 1
        allocated.append(allocator.allocated)
        reserved.append(allocator.reserved)
    result = replay(*stream, options)
    assert result.failed_at == (steps if steps < len(stream[0]) else None)
    if result.out_of_memory:
        return
    assert result.peak_requested_bytes == allocator.peak_requested
    assert result.peak_allocated_bytes == allocator.peak_allocated == max(allocated)
    assert result.peak_reserved_bytes == allocator.peak_reserved
    assert result.retries == allocator.retries
    if result.at_allocated is not None:
        assert result.at_allocated + 1 == allocated.index(max(allocated))
    if result.at_reserved is not None and result.peak_reserved_bytes == max(reserved):
        assert result.at_reserved + 1 <= reserved.index(max(reserved))


@given(streams(), st.booleans())
@settings(deadline=None)
def test_capacity_above_the_peak_changes_nothing(stream, pages):
    free = replay(*stream, AllocatorSettings(expandable_segments=pages))
    capacity = max(free.peak_reserved_bytes, 1)
    limit = AllocatorSettings(capacity_bytes=capacity, expandable_segments=pages)
    assert replay(*stream, limit) == free


@given(streams(), st.booleans())
@settings(deadline=None)
def test_requested_is_the_same_in_either_order(stream, pages):
    results = [
        replay(*stream, AllocatorSettings(address_order=order, expandable_segments=pages))
        for order in ("ascending", "descending")
    ]
    assert len({result.peak_requested_bytes for result in results}) == 1
