"""The largest number for which a condition holds."""

import pytest

from ftbench.predict.bisection import last, last_from_above, last_from_near


def holding_to(answer, calls):
    def holds(number):
        calls.append(number)
        return number <= answer

    return holds


@pytest.mark.parametrize("answer", [0, 1, 2, 63, 64, 99, 100])
def test_the_largest_number_is_found(answer):
    assert last(holding_to(answer, []), 100) == answer
    assert last_from_above(holding_to(answer, []), 100) == answer


@pytest.mark.parametrize("near", [1, 50, 90, 99, 100])
@pytest.mark.parametrize("answer", [0, 1, 60, 99, 100])
def test_a_guess_does_not_change_the_answer(near, answer):
    assert last_from_near(holding_to(answer, []), near, 100) == answer


def test_a_good_guess_saves_calls():
    calls = []
    assert last_from_near(holding_to(1000, calls), 1004, 2**20) == 1000
    assert len(calls) <= 8
