import itertools
import math

import pytest
from hypothesis import given, settings

from ftbench.prediction.simulate.allocator import CachingAllocator, SimulatedOutOfMemory
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.replay import replay
from ftbench.prediction.simulate.segments import Block
from tests.unit.prediction.simulate.streams import (
    KIB,
    MIB,
    SETTINGS,
    play,
    streams,
    until_out_of_memory,
)


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
    with pytest.raises(SimulatedOutOfMemory) as failure:
        allocator.malloc(24 * MIB - 100)
    error = failure.value
    assert (error.requested, error.reserved, error.capacity) == (24 * MIB - 100, 20 * MIB, 40 * MIB)
    assert allocator.retries == 1
    assert allocator.requested == 2 * MIB
    allocator.malloc(18 * MIB)  # what does fit still does
    assert allocator.reserved == 20 * MIB


def test_capacity_counts_the_segment_and_not_the_request():
    with pytest.raises(SimulatedOutOfMemory):
        limited(19 * MIB).malloc(2 * MIB)
    limited(20 * MIB).malloc(2 * MIB)


# Properties


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


@given(streams())
@settings(deadline=None)
def test_the_slack_of_a_block_is_bounded(stream):
    for _, live in play(stream, AllocatorSettings()):
        for block in filter(None, live.values()):
            rest = block.size - math.ceil(block.requested / 512) * 512
            assert 0 <= rest <= (MIB if block.requested > MIB else 0)


# Streams


def test_a_block_is_found_again_on_its_own_stream_only():
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(20 * MIB, 1))
    allocator.malloc(20 * MIB, 0)
    assert allocator.reserved == 40 * MIB
    allocator.malloc(20 * MIB, 1)
    assert allocator.reserved == 40 * MIB


@given(streams(), SETTINGS)
@settings(max_examples=50)
def test_which_stream_is_the_only_one_makes_no_difference(stream, options):
    signs, names, nbytes = stream
    alone = replay(signs, names, nbytes, options)
    assert replay(signs, names, nbytes, options, streams=[3] * len(signs)) == alone


@pytest.mark.parametrize("expandable_segments", [False, True])
def test_near_the_limit_all_streams_release_what_they_have_cached(expandable_segments):
    allocator = limited(100 * MIB, expandable_segments=expandable_segments)
    for stream in (1, 2):
        allocator.free(allocator.malloc(40 * MIB, stream))
    allocator.malloc(60 * MIB, 0)
    assert (allocator.reserved, allocator.retries) == (60 * MIB, 1)
    assert allocator.peak_reserved == 80 * MIB


def test_a_shared_block_counts_as_free_but_waits():
    allocator = CachingAllocator()
    block = allocator.malloc(20 * MIB)
    allocator.free(block, reusable=False)
    assert (allocator.allocated, allocator.requested) == (0, 0)
    second = allocator.malloc(20 * MIB)
    assert allocator.reserved == 40 * MIB
    allocator.reuse(block)
    allocator.malloc(20 * MIB)
    assert allocator.reserved == 40 * MIB
    allocator.free(second)
    with pytest.raises(ValueError, match="free already"):
        allocator.free(second)


def test_a_waiting_block_is_reused_before_memory_runs_out():
    allocator = limited(40 * MIB)
    waiting = allocator.malloc(40 * MIB)
    allocator.free(waiting, reusable=False)
    with pytest.raises(ValueError, match="free already"):
        allocator.free(waiting)
    allocator.malloc(40 * MIB)
    assert (allocator.reserved, allocator.retries) == (40 * MIB, 1)
    allocator.reuse(waiting)  # it is back in its pool, and gone with it
