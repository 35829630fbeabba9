"""The baseline that predictions amount to: which cells, slopes and parts it has."""

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline import LargestFit, Slope
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.predicted import (
    RefusedGroup,
    Steps,
    baseline_of,
    baseline_of_steps,
    refused_groups,
    require_all,
    select,
)
from ftbench.records.prediction import LargestBatch, Refused
from tests.factories import breakdown, grid, part, predictions
from tests.unit.gating.made import AXES, baseline_made, default_peak, shape

TWO_GROUPS = AXES | {"attn_implementation": ["sdpa", "eager"]}


def test_malloc_is_no_part_of_the_workload():
    assert baseline_made().workload == baseline_made(blocks=[AXES | {"malloc": ["keep"]}]).workload


def test_the_largest_cell_stands_for_its_group():
    cells = grid(grid=[AXES])
    (name,) = select(cells).references
    (largest,) = (cell for cell in cells.cells if cell.cell_id == name)
    assert (largest.max_length, largest.per_device_train_batch_size) == (32, 8)


def test_slopes_are_bytes_per_sample_and_per_token():
    """A peak of length x batch KiB rises by length KiB per sample, and by 1 KiB per token."""
    (group,) = baseline_made().groups
    batch = {"axis": "per_device_train_batch_size", "low": 4, "high": 8}
    length = {"axis": "max_length", "low": 16, "high": 32, "bytes_per_unit": 1024}
    assert group.slopes == (
        Slope(**batch, fixed=16, bytes_per_unit=16 * 1024),
        Slope(**batch, fixed=32, bytes_per_unit=32 * 1024),
        Slope(**length, fixed=4),
        Slope(**length, fixed=8),
    )


def test_slopes_are_between_the_two_largest_cells():
    axes = AXES | {"per_device_train_batch_size": [2, 4, 8]}
    (group,) = baseline_made(blocks=[axes]).groups
    edges = [slope.edge for slope in group.slopes if slope.axis != "max_length"]
    assert edges == [("per_device_train_batch_size", length, 4, 8) for length in (16, 32)]


def test_slopes_are_of_the_cells_with_most_training_examples():
    def peaks(cell):
        return default_peak(cell) + (1000 if cell.train_size == 2 else 0) * cell.max_length

    axes = AXES | {"train_size": [2, 64]}
    (group,) = baseline_made(blocks=[axes], peaks=peaks).groups
    assert {s.bytes_per_unit for s in group.slopes if s.axis == "max_length"} == {1024}


def largest(cell_id, length=32, **fields):
    values = {"gpu": "t4", "certain": 100, "possible": 101, "reserved": None}
    return LargestBatch(cell_id=cell_id, max_length=length, **(values | fields))


def test_cards_have_bytes_and_what_fits():
    (reference,) = select(grid(grid=[AXES])).references
    (group,) = baseline_made("t4", largest=(largest(reference),)).groups
    card = group.by_cell[shape(16, 4)].cards["t4"]
    assert card.requested_bytes > 0
    assert card.verdict == "fits"
    assert group.largest == (LargestFit(gpu="t4", max_length=32, batch=100),)


def test_a_largest_batch_is_of_all_cells_that_it_is_the_same_for():
    """Cells of other epochs need the same memory: they are one to a prediction and to a baseline."""
    blocks = [AXES | {"num_train_epochs": [1, 2]}]
    cells = grid(grid=blocks).cells
    long = tuple(cell.cell_id for cell in cells if cell.max_length == 32)
    (group,) = baseline_made("t4", blocks=blocks, largest=(largest(long[0], cell_ids=long),)).groups
    assert group.largest == (LargestFit(gpu="t4", max_length=32, batch=100),)


def test_a_baseline_says_what_may_move_bytes():
    found = baseline_made("t4")
    assert found.versions == {"torch": "2.13.0"}
    assert found.architectures == {"t4": "7.5"}
    assert found.workload["padding"] == "max_length"
    assert "learning_rate" not in found.workload
    assert baseline_made(kernel="math").attention_kernel == "math"
    assert found.attention_kernel is None


def test_cards_are_in_the_order_of_their_names_whatever_was_asked_for():
    assert list(baseline_made("t4", "a100-40gb").architectures) == ["a100-40gb", "t4"]
    assert baseline_made("a100-40gb").architectures == {"a100-40gb": "8.0"}


def test_cells_that_were_refused_are_left_out():
    cells = grid(grid=[AXES])
    found, selection = predictions(cells, parts=True), select(cells)
    some = found.model_copy(update={"cells": found.cells[1:]})
    (group,) = baseline_of("quick", selection, some).groups
    assert len(group.cells) == 3
    none = found.model_copy(update={"cells": found.cells[:1]})
    assert baseline_of("quick", selection, none).groups == ()


def test_refused_groups_are_told_once_with_the_first_line_of_why():
    cells = grid(grid=[TWO_GROUPS])
    eager = [cell for cell in cells.cells if cell.value("attn_implementation") == "eager"]
    refused = tuple(Refused(cell_id=c.cell_id, reason="not covered\nmore") for c in eager)
    found = predictions(cells).model_copy(update={"refused": refused})
    (group,) = refused_groups(select(cells), found)
    assert group == RefusedGroup({"attn_implementation": "eager"}, "not covered")
    with pytest.raises(BaselineError, match="not covered") as caught:
        require_all([group])
    assert caught.value.where == "attn_implementation=eager"
    require_all([])


def test_a_part_of_the_cells_keeps_their_shapes_and_lengths():
    cells = grid(grid=[TWO_GROUPS])
    chosen = cells.only({"attn_implementation": "eager", "max_length": 16}).cells
    selection = select(cells, chosen)
    (group,) = baseline_made(blocks=[TWO_GROUPS]).without(selection.left_out).groups
    assert group.settings == {"attn_implementation": "eager"}
    assert list(group.by_cell) == [shape(16, 4), shape(16, 8)]
    (again,) = baseline_of("quick", selection, predictions(cells, parts=True)).groups
    assert list(again.by_cell) == list(group.by_cell)
    assert selection.references == (chosen[1].cell_id,)
    assert len(selection.left_out) == 6
    assert Place({"attn_implementation": "sdpa"}, shape(16, 4)) in selection.left_out


def test_nothing_is_left_out_if_all_is_chosen():
    cells = grid(grid=[TWO_GROUPS])
    assert select(cells).left_out == select(cells, cells.cells).left_out == frozenset()


def test_steps_that_are_no_cell_are_a_group_of_one():
    parts = breakdown(part(), phase="forward")
    found = baseline_of_steps("mine", Steps(123, 2, 0), parts, [("torch", "2.13.0+cpu")])
    (group,) = found.groups
    assert (found.profile, found.versions, found.workload) == ("mine", {"torch": "2.13.0"}, {})
    assert (group.settings, group.reference, group.slopes) == ({}, NamedSteps(name="step"), ())
    assert [(one.cell, one.tensors_bytes) for one in group.cells] == [(group.reference, 123)]
    assert group.breakdown == parts
