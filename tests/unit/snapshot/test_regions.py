"""Ranges of addresses, against a set of single addresses."""

from hypothesis import given
from hypothesis import strategies as st

from ftbench.snapshot.regions import Regions

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), max_size=25)


@given(STEPS)
def test_ranges_that_join_are_a_set_of_addresses(steps: list[tuple[bool, int, int]]) -> None:
    found, addresses = Regions(), set[int]()
    for adds, start, length in steps:
        span = set(range(start, start + length))
        if adds and not span & addresses:
            found.add(start, length, joins=True)
            addresses |= span
        elif not adds:
            found.remove(start, length)
            addresses -= span
        assert found.nbytes == len(addresses)
        for address in range(60):
            end = next((a for a in range(address, 61) if a not in addresses), 0)
            assert found.end_at(address) == (end if address in addresses else None)


def test_segments_that_touch_stay_apart() -> None:
    found = Regions()
    found.add(0, 10, joins=False)
    found.add(10, 5, joins=False)
    assert (found.end_at(3), found.end_at(10), found.end_at(15), found.nbytes) == (10, 15, None, 15)
    found.remove(0, 10)
    assert (found.end_at(3), found.end_at(10), found.nbytes) == (None, 15, 5)
