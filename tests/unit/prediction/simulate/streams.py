"""Streams of events for an allocator, drawn by hypothesis."""

from hypothesis import strategies as st

from ftbench.prediction.simulate.allocator import CachingAllocator, SimulatedOutOfMemory
from ftbench.prediction.simulate.allocator_settings import AllocatorSettings

KIB, MIB = 1024, 1024**2

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
    except SimulatedOutOfMemory:
        return
