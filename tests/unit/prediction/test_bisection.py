"""The largest number for which a condition holds, in few questions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbench.prediction.bisection import last, last_from_above, last_from_near


class Holds:
    """Whether a number is at most an edge; counts how often it is asked."""

    def __init__(self, edge):
        self.edge, self.asked = edge, []

    def __call__(self, number):
        assert number > 0
        self.asked.append(number)
        return number <= self.edge


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_last_for_which_something_holds(edge, most):
    assert last(Holds(edge), most) == min(edge, most)


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_the_same_from_above(edge, most):
    holds = Holds(edge)
    assert last_from_above(holds, most) == min(edge, most)
    assert all(number <= most for number in holds.asked)
    assert len(set(holds.asked)) == len(holds.asked)


@settings(max_examples=30)
@given(st.integers(1000, 2**16), st.floats(0.95, 1))
def test_from_above_it_takes_few_questions_where_the_edge_is_near(most, share):
    holds = Holds(int(share * most))
    last_from_above(holds, most)
    assert len(holds.asked) <= 20


def test_an_answer_at_once():
    holds = Holds(10)
    assert last_from_above(holds, 10) == 10
    assert holds.asked == [10]


def test_nothing_to_search():
    holds = Holds(10)
    assert last_from_above(holds, 0) == last(holds, 0) == 0
    assert holds.asked == []


@pytest.mark.parametrize("near", [1, 50, 90, 99, 100])
@pytest.mark.parametrize("edge", [0, 1, 60, 99, 100])
def test_a_guess_does_not_change_the_answer(near, edge):
    assert last_from_near(Holds(edge), near, 100) == edge


def test_a_good_guess_saves_questions():
    holds = Holds(1000)
    assert last_from_near(holds, 1004, 2**20) == 1000
    assert len(holds.asked) <= 8
