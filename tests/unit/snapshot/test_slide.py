"""Of several neighbours of one size, the one too many is told by how long they live."""

import numpy as np
import pytest

from ftbench.snapshot.slide import side_of, slid

LIVES = [50, 3, 40, 7, 30, 2]


def _side(lives: list[int]) -> tuple[np.ndarray, np.ndarray]:
    sizes = [1, *[8] * len(lives), 2]
    return np.array(sizes), np.array([-1, *(i + 1 + life for i, life in enumerate(lives)), -1])


@pytest.mark.parametrize("missing", range(len(LIVES)))
@pytest.mark.parametrize("left_out", range(len(LIVES)))
def test_a_gap_is_moved_to_the_row_that_one_side_lacks(missing: int, left_out: int) -> None:
    ours = _side(LIVES)
    theirs = _side([life for place, life in enumerate(LIVES) if place != missing])

    def pairs(without: int) -> list[list[int]]:
        rows = [row for row in range(len(LIVES) + 2) if row != without + 1]
        return [[row, other] for other, row in enumerate(rows)]

    found = slid(np.array(pairs(left_out)), side_of(*ours), side_of(*theirs))
    assert found.tolist() == pairs(missing)
    turned = np.array(pairs(left_out))[:, ::-1]
    found = slid(turned, side_of(*theirs), side_of(*ours))
    assert found[:, ::-1].tolist() == pairs(missing)


def test_a_gap_does_not_move_over_another_size() -> None:
    pairs = np.array([[0, 0], [1, 1], [3, 2], [4, 3]])
    sizes = np.array([1, 2, 9, 3, 4])
    side = side_of(sizes, np.array([9, 9, 3, 4, 5]))
    assert slid(pairs, side, side_of(sizes[[0, 1, 3, 4]], np.array([1, 2, 3, 4]))).tolist() == (
        pairs.tolist()
    )
