"""Sequences are aligned as a long comparison would, in the time of a short one."""

import itertools
import random
from functools import cache

import numpy as np
import pytest

from ftbench.snapshot.align import COMMIT, Alignment


def _aligned(ours: list[int], theirs: list[int], **options: tuple[int, int]) -> list[list[int]]:
    pairs, _ = Alignment(np.array(ours), np.array(theirs)).pairs(**options)
    found = pairs.tolist()
    assert all(ours[i] == theirs[j] for i, j in found)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(found))
    return found


def _longest(ours: list[int], theirs: list[int]) -> int:
    """Return the length of the longest common subsequence, by the textbook's recursion."""

    @cache
    def length(i: int, j: int) -> int:
        if i == len(ours) or j == len(theirs):
            return 0
        if ours[i] == theirs[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_few_changes_leave_the_longest_common_subsequence(seed: int) -> None:
    dice = random.Random(seed)
    ours = [dice.randrange(40) for _ in range(150)]
    theirs = list(ours)
    for _ in range(3):
        place = dice.randrange(len(theirs))
        theirs[place : place + dice.randrange(4)] = [dice.randrange(100, 140)] * dice.randrange(4)
    assert len(_aligned(ours, theirs)) == _longest(ours, theirs)


def test_equal_sequences_are_equal_throughout() -> None:
    sizes = list(range(10_000))
    assert _aligned(sizes, sizes) == [[i, i] for i in range(10_000)]


def test_what_is_added_again_and_again_is_left_out_each_time() -> None:
    step = list(range(60))
    ours, theirs = step * 50, [*step[:30], 777, *step[30:]] * 50
    assert len(_aligned(ours, theirs)) == len(ours)


def test_differences_that_are_dense_are_left_out_each_time() -> None:
    step = [*range(20), *range(20)]
    ours = step * 100
    theirs = [*step[:3], 777, *step[3:9], 778, *step[9:25], 779, *step[25:]] * 100
    assert len(_aligned(ours, theirs)) == len(ours)


def test_a_long_part_that_one_side_lacks_is_jumped_over() -> None:
    head, tail = list(range(100)), list(range(9000, 9100))
    for ours, theirs in (
        (head + [5] * 3000 + tail, head + tail),
        (head + tail, head + [5] * 3000 + tail),
    ):
        assert len(_aligned(ours, theirs)) == 200


def test_the_end_of_one_side_ends_the_comparison() -> None:
    sizes = list(range(100))
    alignment = Alignment(np.array(sizes), np.array(sizes[:60]))
    pairs, end = alignment.pairs()
    assert (len(pairs), end) == (60, (60, 60))


def test_nothing_in_common_ends_it_where_it_begins() -> None:
    ours, theirs = list(range(1000)), list(range(5000, 6000))
    pairs, end = Alignment(np.array(ours), np.array(theirs)).pairs()
    assert (len(pairs), end) == (0, (0, 0))


def test_a_recording_from_the_middle_begins_where_the_longest_run_does() -> None:
    setup, step = list(range(1000, 1100)), [*range(80)]
    first = [*step[:40], 555, *step[40:]]  # of all steps, the first is another
    ours = [*setup, *first, *step, *step, *step]
    theirs = [*step[10:], *step, *step]
    alignment = Alignment(np.array(ours), np.array(theirs))
    assert alignment.beginning() == (len(setup) + len(first) + 10, 0)


def test_the_beginning_may_follow_rows_that_nothing_is_like() -> None:
    ours = list(range(200))
    theirs = [999] * 7 + ours[50:]
    assert Alignment(np.array(ours), np.array(theirs)).beginning() == (50, 7)
    assert Alignment(np.array(ours), np.array([999] * 90)).beginning() == (0, 0)


def test_repetitions_of_one_size_do_not_pull_the_rest_apart() -> None:
    ours = [1, 2, 3, *[7] * (2 * COMMIT), 4, 5, 6, *range(100, 200)]
    theirs = [1, 2, 3, 8, *[7] * (2 * COMMIT), 4, 5, 6, *range(100, 200)]
    assert len(_aligned(ours, theirs)) == len(ours)
