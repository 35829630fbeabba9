"""Groups: which cells are one, and what tells the others apart."""

import pytest

from ftbench.plan.groups import CellShape, common_facets, groups_of
from ftbench.plan.settings import differing
from tests.factories import grid

AXES = {
    "max_length": [16, 32],
    "per_device_train_batch_size": [4, 8],
    "train_size": [64],
}


def shape(length, batch, train_size=None):
    return CellShape(max_length=length, per_device_train_batch_size=batch, train_size=train_size)


def test_cells_are_told_apart_by_length_and_batch():
    (group,) = groups_of(grid(grid=[AXES]).cells)
    assert group.settings == {}
    assert list(group.cells) == [shape(16, 4), shape(16, 8), shape(32, 4), shape(32, 8)]


def test_cells_of_which_memory_is_the_same_share_a_shape():
    cells = grid(grid=[AXES | {"seed": [1, 2], "learning_rate": [1e-5, 1e-3]}]).cells
    (group,) = groups_of(cells)
    assert [len(own) for own in group.cells.values()] == [4, 4, 4, 4]
    assert group.first_cells[shape(16, 4)] == next(
        cell for cell in cells if (cell.max_length, cell.per_device_train_batch_size) == (16, 4)
    )


def test_malloc_does_not_change_predicted_bytes():
    (group,) = groups_of(grid(grid=[AXES | {"malloc": ["default", "keep"]}]).cells)
    assert len(group.cells) == 4


def test_runs_of_before_had_the_default():
    """Runs are told apart by malloc, but one that does not name it has the default."""
    usual, kept = (grid(grid=[AXES | {"malloc": [m]}]).cells for m in ("default", "keep"))
    before = {name: value for name, value in common_facets(usual, dict).items() if name != "malloc"}
    assert differing(before, common_facets(usual, dict)) == []
    assert differing(before, common_facets(kept, dict)) == ["malloc"]


def test_what_moves_memory_makes_groups():
    cells = grid(grid=[AXES | {"attn_implementation": ["sdpa", "eager"], "bf16": [False, True]}])
    settings = [group.settings for group in groups_of(cells.cells)]
    assert len(settings) == 4
    assert {"attn_implementation": "eager", "bf16": True} in settings


def test_training_examples_tell_cells_apart_if_they_differ():
    (group,) = groups_of(grid(grid=[AXES | {"train_size": [2, 64]}]).cells)
    assert len(group.cells) == 8
    assert shape(16, 4, 2) in group.cells


def test_the_largest_has_most_positions():
    (group,) = groups_of(grid(grid=[AXES]).cells)
    assert group.largest == shape(32, 8)


def test_chosen_cells_keep_the_shape_that_they_have_among_all():
    cells = grid(grid=[AXES | {"train_size": [2, 64], "seed": [1, 2]}])
    (group,) = groups_of(cells.cells)
    chosen = cells.only({"max_length": 16, "train_size": 2, "seed": 2}).cells
    part = group.only(chosen)
    assert list(part.cells) == [shape(16, 4, 2), shape(16, 8, 2)]
    assert {cell.seed for cell in part.first_cells.values()} == {2}


@pytest.mark.parametrize("values", [{"max_length": 0}, {"train_size": -1}, {"max_length": "16"}])
def test_a_shape_has_whole_numbers_from_one_on(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        CellShape(**({"max_length": 16, "per_device_train_batch_size": 4} | values))
