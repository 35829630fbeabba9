import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.records.token_facts import token_facts


def test_shares_against_a_count_by_hand():
    # At 4: one of four is cut, and 2 + 1 of 16 places are padding.
    facts = token_facts([2, 3, 4, 10], [4, 16], of=100)
    assert (facts.texts, facts.of) == (4, 100)
    assert (facts.median, facts.p95, facts.longest) == (3, 10, 10)
    four, sixteen = facts.by_length
    assert (four.max_length, four.cut, four.padding) == (4, 0.25, pytest.approx(3 / 16))
    assert (sixteen.cut, sixteen.padding) == (0, pytest.approx(1 - 19 / 64))


def test_one_text():
    facts = token_facts([7], [7, 3, 7], of=1)
    assert (facts.median, facts.p95, facts.longest) == (7, 7, 7)
    assert [(one.max_length, one.cut, one.padding) for one in facts.by_length] == [
        (3, 1.0, 0.0),
        (7, 0.0, 0.0),
    ]


@given(st.lists(st.integers(1, 900), min_size=1), st.integers(1, 600))
def test_a_longer_length_cuts_no_more_and_pads_no_less(lengths, at):
    shorter, longer = token_facts(lengths, (at, at + 1), of=len(lengths)).by_length
    assert longer.cut <= shorter.cut
    assert longer.padding >= shorter.padding - 1e-9
    assert 0 <= shorter.padding < 1
