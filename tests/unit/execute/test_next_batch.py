"""The search against machines whose edge is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.execute.next_batch import edge, next_batch
from ftbench.records.batch_probe import BatchProbe
from tests.factories import cell

LIMIT = 4 * 2**30


def tried(batch, fits, peak=None, status=None):
    return BatchProbe(
        cell=cell(),
        batch=batch,
        limit_bytes=LIMIT,
        limit="enforced",
        status=status or ("ok" if fits else "oom"),
        fits=fits,
        peak_bytes=peak if fits else None,
        environment_id="e",
        wall_s=1.0,
    )


def search(peak_of, largest=4096, *, tells_peak=True):
    """Return (largest that fits, the tries it took) on a machine where a batch needs `peak_of`."""
    tries = []
    while (batch := next_batch(tries, LIMIT, largest)) is not None:
        assert batch not in {one.batch for one in tries}, "a size was tried twice"
        assert 1 <= batch <= largest
        peak = peak_of(batch)
        tries.append(tried(batch, peak <= LIMIT, peak if tells_peak else None))
        assert len(tries) <= 8 + 12  # the tries along the line, then halving of at most 4,096
    found = edge(tries)
    return (found.fits.batch if found.fits else 0), len(tries)


def line(base, slope):
    return lambda batch: base + slope * batch


@given(st.integers(1, 4 * 2**30), st.integers(2**20, 2**29))
def test_the_edge_of_a_straight_line_is_found_exactly(base, slope):
    true = min(max((LIMIT - base) // slope, 0), 4096)
    assert search(line(base, slope))[0] == true


@given(
    st.integers(1, 2**31),
    st.integers(2**20, 2**28),
    st.integers(0, 2**22),
    st.integers(0, 10**6),
)
def test_so_is_that_of_one_that_wavers_and_bends(base, slope, bend, seed):
    def peak_of(batch):
        return base + slope * batch + bend * batch**2 + (seed * batch * 7919) % (slope // 4 + 1)

    found, _ = search(peak_of, largest=512)
    assert found == 0 or peak_of(found) <= LIMIT
    assert found == 512 or peak_of(found + 1) > LIMIT


def test_a_line_takes_few_tries():
    counts = [search(line(base, slope))[1] for base in (2**28, 2**30) for slope in (2**20, 2**24)]
    assert max(counts) <= 8


def test_without_peaks_it_is_a_bisection():
    found, tries = search(line(2**30, 2**24), tells_peak=False)
    assert found == 192
    assert tries <= 2 * 8


def test_nothing_fits():
    assert search(line(2 * LIMIT, 1)) == (0, 1)


def test_the_largest_that_is_looked_for_fits():
    found, tries = search(line(0, 1), largest=64)
    assert found == 64
    assert tries <= 5


def test_another_end_than_memory_stops_the_search():
    tries = [tried(1, True, 2**30), tried(2, None, status="timeout")]
    assert next_batch(tries, LIMIT, 64) is None
    assert edge(tries).undecided.batch == 2
    assert not edge(tries).decided


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_small_bounds(largest):
    assert search(line(2**29, 2**29), largest=largest)[0] == min(largest, 7)
