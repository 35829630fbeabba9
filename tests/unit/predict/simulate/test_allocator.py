import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.predict.simulate.allocator import (
    AllocatorSettings,
    Block,
    CachingAllocator,
    OutOfMemory,
    Replay,
    replay,
)

KIB, MIB = 1024, 1024**2
EXPANDABLE = AllocatorSettings(expandable_segments=True)


def limited(capacity_bytes, **options):
    return CachingAllocator(AllocatorSettings(capacity_bytes=capacity_bytes, **options))


# Rounding and segments


@pytest.mark.parametrize(
    ("nbytes", "size"), [(1, 512), (512, 512), (513, 1024), (1024, 1024), (MIB + 1, MIB + 512)]
)
def test_sizes_are_multiples_of_512(nbytes, size):
    allocator = CachingAllocator()
    allocator.malloc(nbytes)
    assert (allocator.requested, allocator.allocated) == (nbytes, size)


@pytest.mark.parametrize(
    ("nbytes", "reserved"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),  # the largest of the small pool
        (MIB + 1, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),  # rounds to 10 MiB, which has a segment of its own
        (10 * MIB, 10 * MIB),
        (10 * MIB + 1, 12 * MIB),
        (12 * MIB, 12 * MIB),
        (33_554_432, 32 * MIB),
    ],
)
def test_the_segment_of_a_request(nbytes, reserved):
    allocator = CachingAllocator()
    allocator.malloc(nbytes)
    assert allocator.reserved == allocator.peak_reserved == reserved


def test_nothing_takes_nothing():
    allocator = CachingAllocator()
    assert allocator.malloc(0) is None
    allocator.free(None)
    assert (allocator.requested, allocator.allocated, allocator.reserved) == (0, 0, 0)


def test_a_negative_request_is_refused():
    with pytest.raises(ValueError, match="-1 bytes"):
        CachingAllocator().malloc(-1)


def test_small_blocks_share_a_segment_until_it_is_full():
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.malloc(512 * KIB)
    assert allocator.reserved == 2 * MIB
    allocator.malloc(1)
    assert allocator.reserved == 4 * MIB


def test_the_pools_are_apart():
    allocator = CachingAllocator()
    allocator.free(
        allocator.malloc(19 * MIB)
    )  # a free large block of 20 MiB: not for a small request
    allocator.malloc(4)
    assert allocator.reserved == 22 * MIB
    allocator.malloc(1 * MIB + 512)  # and the small segment's rest is not for a large one
    assert allocator.reserved == 22 * MIB


# Splitting


def block_for(first, second, **options):
    """The size of the block for `second`, where only a block of `first` is free."""
    allocator = CachingAllocator(AllocatorSettings(**options))
    allocator.free(allocator.malloc(first))
    block = allocator.malloc(second)
    return block.size


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        (30 * MIB, 29 * MIB, 30 * MIB),  # a rest of exactly 1 MiB stays on
        (30 * MIB, 29 * MIB - 511, 30 * MIB),
        (30 * MIB, 29 * MIB - 512, 29 * MIB - 512),  # one of 1 MiB + 512 B is split off
        (30 * MIB, 30 * MIB, 30 * MIB),
    ],
)
def test_a_large_block_is_split_where_more_than_1_mib_remains(first, second, size):
    assert block_for(first, second) == size


def test_what_is_not_split_off_counts_as_allocated():
    allocator = CachingAllocator()
    block = allocator.malloc(29 * MIB)  # a segment of 30 MiB
    assert (allocator.requested, allocator.allocated) == (29 * MIB, 30 * MIB)
    allocator.free(block)
    assert (allocator.requested, allocator.allocated) == (0, 0)


def test_a_small_block_is_split_down_to_512_bytes():
    allocator = CachingAllocator()
    allocator.malloc(MIB)
    middle = allocator.malloc(MIB - 512)
    assert middle.size == MIB - 512
    allocator.malloc(512)
    assert allocator.reserved == 2 * MIB


# Best fit


def holes(allocator, *sizes):
    """Free blocks of these sizes, kept apart by live ones of 2 MiB, in one segment: lowest first."""
    blocks = [allocator.malloc(sum(sizes) + 2 * MIB * len(sizes))]
    allocator.free(blocks[0])
    made = [(allocator.malloc(size), allocator.malloc(2 * MIB))[0] for size in sizes]
    for block in made:
        allocator.free(block)
    return [block.address for block in made]


def test_the_smallest_block_that_fits_is_taken():
    allocator = CachingAllocator()
    big, small, middle = holes(allocator, 8 * MIB, 3 * MIB, 5 * MIB)
    assert allocator.malloc(4 * MIB).address == middle
    assert allocator.malloc(3 * MIB).address == small
    assert allocator.malloc(4 * MIB).address == big
    assert allocator.reserved == 22 * MIB


def test_the_lowest_of_equal_blocks_is_taken():
    allocator = CachingAllocator()
    first, second = holes(allocator, 4 * MIB, 4 * MIB)
    assert [allocator.malloc(4 * MIB).address for _ in range(2)] == [first, second]


@pytest.mark.parametrize(("order", "splits"), [("ascending", "first"), ("descending", "second")])
def test_the_address_order_decides_between_equal_segments(order, splits):
    allocator = CachingAllocator(AllocatorSettings(address_order=order))
    segments = [allocator.malloc(20 * MIB), allocator.malloc(20 * MIB)]
    addresses = {"first": segments[0].address, "second": segments[1].address}
    for block in segments:
        allocator.free(block)
    assert allocator.malloc(4 * MIB).address == addresses[splits]


def test_the_address_order_can_change_what_is_reserved():
    # Segments A and B of 20 MiB each begin with a live block of 2 MiB; 18 MiB are free in either. A
    # request for 4 MiB goes to the lower address. Then the live block of B dies: where the 4 MiB are
    # in A (ascending), B is whole again and serves 20 MiB; where they are in B, nothing does.
    signs = [1, 1, 1, 1, -1, -1, 1, -1, 1]
    names = [0, 1, 2, 3, 1, 3, 4, 2, 5]
    sizes = [2, 18, 2, 18, 18, 18, 4, 2, 20]
    nbytes = [size * MIB for size in sizes]
    reserved = {
        order: replay(
            signs, names, nbytes, AllocatorSettings(address_order=order)
        ).peak_reserved_bytes
        for order in ("ascending", "descending")
    }
    assert reserved == {"ascending": 40 * MIB, "descending": 60 * MIB}


# Merging


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_free_neighbours_merge_in_any_order(order):
    allocator = CachingAllocator()
    blocks = [allocator.malloc(6 * MIB), allocator.malloc(6 * MIB), allocator.malloc(8 * MIB)]
    assert allocator.reserved == 20 * MIB
    for index in order:
        allocator.free(blocks[index])
    allocator.malloc(20 * MIB)
    assert allocator.reserved == 20 * MIB


def test_a_live_block_between_two_free_ones_keeps_them_apart():
    allocator = CachingAllocator()
    low, _, high = (allocator.malloc(size * MIB) for size in (6, 6, 8))
    allocator.free(low)
    allocator.free(high)
    allocator.malloc(14 * MIB)
    assert allocator.reserved == 34 * MIB


def test_segments_do_not_merge():
    allocator = CachingAllocator()
    for block in [allocator.malloc(20 * MIB), allocator.malloc(20 * MIB)]:
        allocator.free(block)
    allocator.malloc(40 * MIB)
    assert allocator.reserved == 80 * MIB


def test_a_block_is_freed_once():
    allocator = CachingAllocator()
    block = allocator.malloc(4)
    allocator.free(block)
    with pytest.raises(ValueError, match="free already"):
        allocator.free(block)


# Capacity


def test_a_retry_gives_back_what_is_cached():
    allocator = limited(60 * MIB)
    allocator.malloc(4)  # 2 MiB, and split: it stays
    allocator.free(allocator.malloc(30 * MIB))
    allocator.malloc(40 * MIB)  # 2 + 30 + 40 is too much
    assert allocator.retries == 1
    assert (allocator.reserved, allocator.peak_reserved) == (42 * MIB, 42 * MIB)


def test_a_retry_reaches_both_pools():
    allocator = limited(40 * MIB)
    allocator.free(allocator.malloc(4))
    allocator.malloc(40 * MIB)
    assert (allocator.retries, allocator.reserved) == (1, 40 * MIB)


def test_a_split_segment_is_not_given_back():
    allocator = limited(40 * MIB)
    allocator.malloc(2 * MIB)  # a segment of 20 MiB, of which 18 are free
    with pytest.raises(OutOfMemory) as failure:
        allocator.malloc(24 * MIB - 100)
    error = failure.value
    assert (error.requested, error.reserved, error.capacity) == (24 * MIB - 100, 20 * MIB, 40 * MIB)
    assert allocator.retries == 1
    assert allocator.requested == 2 * MIB
    allocator.malloc(18 * MIB)  # what does fit still does
    assert allocator.reserved == 20 * MIB


def test_capacity_counts_the_segment_and_not_the_request():
    with pytest.raises(OutOfMemory):
        limited(19 * MIB).malloc(2 * MIB)
    limited(20 * MIB).malloc(2 * MIB)


def test_a_retry_makes_the_peak_lower():
    events = ([1, -1, 1, -1, 1], [0, 0, 1, 1, 2], [30 * MIB, 0, 40 * MIB, 0, 50 * MIB])
    assert replay(*events).peak_reserved_bytes == 120 * MIB
    short = replay(*events, AllocatorSettings(capacity_bytes=100 * MIB))
    assert (short.peak_reserved_bytes, short.retries) == (70 * MIB, 1)
    assert short.at_reserved == 2


# Expandable segments


def expandable(capacity_bytes=None):
    return CachingAllocator(
        AllocatorSettings(capacity_bytes=capacity_bytes, expandable_segments=True)
    )


@pytest.mark.parametrize(
    ("nbytes", "reserved"),
    [(1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (20 * MIB, 20 * MIB), (21 * MIB, 40 * MIB)],
)
def test_an_expandable_segment_grows_by_pages(nbytes, reserved):
    allocator = expandable()
    allocator.malloc(nbytes)
    assert allocator.reserved == reserved


def test_an_expandable_segment_grows_by_what_is_missing():
    allocator = expandable()
    allocator.malloc(30 * MIB)  # two pages, of which 10 MiB are free at the end
    allocator.malloc(25 * MIB)  # needs 15 more: one page
    assert allocator.reserved == 60 * MIB


def test_an_expandable_block_is_split_down_to_512_bytes():
    allocator = expandable()
    assert allocator.malloc(20 * MIB - 512).size == 20 * MIB - 512
    assert allocator.malloc(2 * MIB).size == 2 * MIB
    assert allocator.reserved == 40 * MIB


def test_free_pages_serve_a_larger_request():
    signs, names = [1, -1, 1], [0, 0, 1]
    nbytes = [30 * MIB, 0, 40 * MIB]
    assert replay(signs, names, nbytes).peak_reserved_bytes == 70 * MIB
    assert replay(signs, names, nbytes, EXPANDABLE).peak_reserved_bytes == 40 * MIB


def test_the_best_fit_is_what_can_grow_least():
    allocator = expandable()
    first = allocator.malloc(24 * MIB)
    allocator.malloc(2 * MIB)  # 14 MiB free behind it, which can grow
    allocator.free(first)  # 24 MiB free, which cannot
    assert allocator.malloc(10 * MIB).address == first.address


def test_a_retry_unmaps_whole_free_pages():
    allocator = expandable(60 * MIB)
    hole = allocator.malloc(30 * MIB)
    allocator.malloc(10 * MIB)  # ends the second page
    allocator.malloc(2 * MIB)  # begins the third
    allocator.free(hole)  # 30 MiB free: one whole page and half of the second
    assert allocator.reserved == 60 * MIB
    allocator.malloc(38 * MIB)  # 18 MiB free at the end of the third; one more page is needed
    assert (allocator.retries, allocator.reserved) == (1, 60 * MIB)


def test_an_unmapped_gap_is_filled_first():
    allocator = expandable(80 * MIB)
    low = allocator.malloc(20 * MIB)
    allocator.malloc(20 * MIB)
    address = low.address
    allocator.free(low)
    allocator.release_cached()
    assert allocator.reserved == 20 * MIB
    assert allocator.malloc(20 * MIB).address == address
    assert allocator.reserved == 40 * MIB


def test_a_gap_that_is_too_small_is_left():
    allocator = expandable()
    low = allocator.malloc(20 * MIB)
    high = allocator.malloc(20 * MIB)
    allocator.free(low)
    allocator.release_cached()
    assert allocator.malloc(30 * MIB).address == high.address + high.size
    assert allocator.reserved == 60 * MIB


def test_expandable_out_of_memory():
    allocator = expandable(50 * MIB)
    allocator.malloc(30 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(30 * MIB)
    assert (allocator.retries, allocator.reserved) == (1, 40 * MIB)
    assert allocator.malloc(10 * MIB).size == 10 * MIB


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


# Settings and replay


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"capacity_bytes": 0}, "capacity_bytes is 0"), ({"address_order": "up"}, "is 'up'")],
)
def test_settings_are_validated(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        AllocatorSettings(**options)


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


# Properties

SIZES = st.one_of(
    st.integers(0, 4 * KIB),
    st.sampled_from([512, 513, MIB - 512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 20 * MIB]),
    st.integers(MIB, 40 * MIB),
)
SETTINGS = st.builds(
    AllocatorSettings,
    capacity_bytes=st.one_of(st.none(), st.integers(1 * MIB, 200 * MIB)),
    address_order=st.sampled_from(["ascending", "descending"]),
    expandable_segments=st.booleans(),
)


@st.composite
def streams(draw):
    """Signs, names and sizes of events, in which a name is allocated, then perhaps freed."""
    signs, names, nbytes, live = [], [], [], []
    for name, size in enumerate(draw(st.lists(SIZES, max_size=40))):
        signs.append(1), names.append(name), nbytes.append(size)
        live.append(name)
        while live and draw(st.integers(0, 2)) == 0:
            freed = live.pop(draw(st.integers(0, len(live) - 1)))
            signs.append(-1), names.append(freed), nbytes.append(nbytes[names.index(freed)])
    return signs, names, nbytes


def play(stream, options):
    """An allocator after each event of a stream, with its live blocks by name."""
    allocator, live = CachingAllocator(options), {}
    for sign, name, nbytes in zip(*stream, strict=True):
        if sign > 0:
            live[name] = allocator.malloc(nbytes)
        else:
            allocator.free(live.pop(name))
        yield allocator, live


def until_out_of_memory(steps):
    try:
        yield from steps
    except OutOfMemory:
        return


def chain(block):
    """Every block of a block's segment, from its lowest address."""
    while block.prev is not None:
        block = block.prev
    while block is not None:
        yield block
        block = block.next


def check_segment(block):
    blocks = list(chain(block))
    for one, after in itertools.pairwise(blocks):
        assert after.prev is one
        assert one.address + one.size == after.address
        assert not (one.free and after.free)
        assert one.mapped or after.mapped
    for one in blocks:
        assert one.size > 0
        assert one.size % 512 == 0


@given(streams(), SETTINGS)
@settings(deadline=None)
def test_blocks_tile_their_segment(stream, options):
    for _, live in until_out_of_memory(play(stream, options)):
        held = [block for block in live.values() if isinstance(block, Block)]
        for block in held:
            assert not block.free
            assert block.mapped
            assert any(one is block for one in chain(block))
            check_segment(block)
        spans = sorted((id(b.pool), b.address, b.address + b.size) for b in held)
        for (pool, _, end), (other, start, _) in itertools.pairwise(spans):
            assert pool != other or end <= start


@given(streams(), SETTINGS)
@settings(deadline=None)
def test_each_figure_holds_the_one_before(stream, options):
    peaks = (0, 0, 0)
    for allocator, live in until_out_of_memory(play(stream, options)):
        held = [block for block in live.values() if block is not None]
        assert allocator.requested == sum(block.requested for block in held)
        assert allocator.allocated == sum(block.size for block in held)
        assert allocator.requested <= allocator.allocated <= allocator.reserved
        assert options.capacity_bytes is None or allocator.reserved <= options.capacity_bytes
        before, peaks = (
            peaks,
            (allocator.peak_requested, allocator.peak_allocated, allocator.peak_reserved),
        )
        now = (allocator.requested, allocator.allocated, allocator.reserved)
        assert all(
            peak >= max(old, current) for peak, old, current in zip(peaks, before, now, strict=True)
        )


@given(streams(), SETTINGS)
@settings(deadline=None)
def test_nothing_is_left_when_everything_is_freed(stream, options):
    allocator, live = CachingAllocator(options), {}
    for allocator, live in until_out_of_memory(play(stream, options)):  # noqa: B007
        pass
    for block in live.values():
        allocator.free(block)
    assert (allocator.requested, allocator.allocated) == (0, 0)
    allocator.release_cached()
    assert allocator.reserved == 0


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


@given(streams())
@settings(deadline=None)
def test_the_slack_of_a_block_is_bounded(stream):
    for _, live in play(stream, AllocatorSettings()):
        for block in filter(None, live.values()):
            rest = block.size - math.ceil(block.requested / 512) * 512
            assert 0 <= rest <= (MIB if block.requested > MIB else 0)


def test_unmapped_pages_beside_one_another_become_one_range():
    allocator = limited(60 * MIB, expandable_segments=True)
    first, second, third = (allocator.malloc(20 * MIB) for _ in range(3))

    def give_back(block):
        """Free a block, and ask for more than there is, so that its page is unmapped."""
        allocator.free(block)
        with pytest.raises(OutOfMemory):
            allocator.malloc(60 * MIB)
        return allocator.reserved

    assert give_back(first) == 40 * MIB
    assert give_back(second) == 20 * MIB  # before it lies the first
    both = allocator.malloc(40 * MIB)
    assert (both.address, allocator.reserved) == (0, 60 * MIB)
    assert give_back(third) == 40 * MIB  # behind it lies what was never mapped
    again = allocator.malloc(20 * MIB)
    assert (again.address, again.size, allocator.reserved) == (40 * MIB, 20 * MIB, 60 * MIB)
    assert allocator.retries == 3
