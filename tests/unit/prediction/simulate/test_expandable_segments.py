import pytest

from ftbench.prediction.simulate.allocator import CachingAllocator, SimulatedOutOfMemory
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings
from ftbench.prediction.simulate.replay import replay
from tests.unit.prediction.simulate.streams import MIB

EXPANDABLE = AllocatorSettings(expandable_segments=True)


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
    with pytest.raises(SimulatedOutOfMemory):
        allocator.malloc(30 * MIB)
    assert (allocator.retries, allocator.reserved) == (1, 40 * MIB)
    assert allocator.malloc(10 * MIB).size == 10 * MIB


def test_unmapped_pages_beside_one_another_become_one_range():
    allocator = expandable(60 * MIB)
    first, second, third = (allocator.malloc(20 * MIB) for _ in range(3))

    def give_back(block):
        """Free a block, and ask for more than there is, so that its page is unmapped."""
        allocator.free(block)
        with pytest.raises(SimulatedOutOfMemory):
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
