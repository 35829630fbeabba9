"""Baselines of programs: which figures of which arguments they have, and what the gate says when these change."""

import pytest

from ftbench.gating.baseline_file import read_baseline, write_baseline
from ftbench.gating.compare import compare
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.predicted_programs import (
    baseline_of_program,
    places_left_out,
    refused_of_program,
)
from ftbench.gating.reasons import Differs, SettingChange
from ftbench.gating.result import BlocksChange, BytesChange
from ftbench.plan.gpus import find_gpu
from ftbench.plan.programs import Program, program_grid
from ftbench.records.prediction import Growth, Predictions, Refused
from tests.factories import breakdown, figure, part, predicted_cell

STEP = NamedSteps(name="step")
T4 = find_gpu("t4")
MIB = 2**20


def grid(*assignments, file="train.py", steps=None):
    return program_grid(Program(file=file, factory="make_step"), assignments, steps)


def answer(of, more=0, blocks=3, grown=0, gpus=("t4",), **changes):
    """Predictions in which each cell needs 90 MiB and `more` bytes."""
    tensors = figure(90, certainty="exact").model_copy(update={"value_bytes": 90 * MIB + more})
    cells = tuple(
        predicted_cell(
            cell.cell_id,
            *gpus,
            tensors=tensors,
            breakdown=breakdown(part("aten::mm", 90 * MIB + more, source="train.py:7")),
            live_blocks=blocks,
            growth=Growth(nbytes=grown, steps=1, parts=()) if grown else None,
        )
        for cell in of.cells
    )
    return Predictions(**({"cells": cells, "versions": (("torch", "2.13.0+cpu"),)} | changes))


def baseline(of, **changes):
    return baseline_of_program(of, answer(of, **changes), [T4])


def test_each_set_of_arguments_is_a_group_with_its_own_figures_and_parts():
    found = baseline(grid("batch=[4, 8]", "width=64"), blocks=5, grown=100)
    assert found.profile == "train.py:make_step"
    assert found.workload == {"program": "train.py:make_step", "arg.width": 64}
    assert found.versions == {"torch": "2.13.0"}
    assert found.architectures == {"t4": "7.5"}
    assert [group.settings for group in found.groups] == [{"arg.batch": 4}, {"arg.batch": 8}]
    for group in found.groups:
        (cell,) = group.cells
        assert (cell.cell, group.reference) == (STEP, STEP)
        assert (cell.tensors_bytes, cell.live_blocks, cell.growth_bytes) == (90 * MIB, 5, 100)
        assert list(cell.cards) == ["t4"]
        assert [one.operator for one in group.parts] == ["aten::mm"]


def test_a_baseline_goes_through_its_file(tmp_path):
    found = baseline(grid("batch=[4, 8]", "names=[['a'], ['b']]"))
    write_baseline(found, tmp_path / "b.json")
    read = read_baseline(tmp_path / "b.json")
    assert compare(read, found).exit_code == 0
    assert len(compare(read, found).judged) == 4


def test_another_number_of_steps_is_another_workload():
    assert baseline(grid(steps=5)).workload["steps"] == 5
    result = compare(baseline(grid()), baseline(grid(steps=5)))
    assert result.unjudged == (Differs("workload", "steps", None, 5),)


def test_one_byte_more_fails_in_the_cell_that_it_is_of():
    of = grid("batch=[4, 8]")
    now = answer(of)
    moved = answer(of, more=1).cells[1]
    result = compare(
        baseline(of),
        baseline_of_program(of, now.model_copy(update={"cells": (now.cells[0], moved)}), [T4]),
    )
    (change,) = (one for one in result.changes if one.gpu is None)
    assert change == BytesChange(
        Place({"arg.batch": 8}, STEP), "requested", None, 90 * MIB, 90 * MIB + 1, "regression"
    )
    (attribution,) = result.attributions
    assert attribution.settings == {"arg.batch": 8}
    assert [one.source for one in attribution.changed_parts] == ["train.py:7"]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("change", "kind"), [({"blocks": 4}, BlocksChange), ({"grown": 8}, BytesChange)]
)
def test_more_tensors_and_growth_fail_as_well(change, kind):
    result = compare(baseline(grid()), baseline(grid(), **change))
    assert [type(one) for one in result.failures] == [kind]


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (["batch=4"], ["batch=8"], [SettingChange("arg.batch", 4, 8)]),
        (["seed=42"], [], [SettingChange("arg.seed", 42, None)]),
        (["learning_rate=1"], ["learning_rate=2"], [SettingChange("arg.learning_rate", 1, 2)]),
    ],
)
def test_a_changed_argument_is_compared_and_named(before, after, changes):
    result = compare(baseline(grid(*before)), baseline(grid(*after), more=64))
    assert list(result.settings) == changes
    assert result.exit_code == 1


def test_another_program_is_not_compared():
    result = compare(baseline(grid()), baseline(grid(file="other.py")))
    (reason,) = result.unjudged
    assert reason == Differs("workload", "program", "train.py:make_step", "other.py:make_step")


def test_a_part_of_the_grid_is_compared_with_its_part_of_the_baseline():
    whole = grid("batch=[4, 8]")
    chosen = whole.only({"batch": 8})
    left_out = places_left_out(whole, chosen)
    assert left_out == {Place({"arg.batch": 4}, STEP)}
    found = baseline_of_program(whole, answer(chosen, more=1), [T4])
    result = compare(baseline(whole).without(left_out), found)
    assert [place.settings for place in result.judged] == [{"arg.batch": 8}]
    assert result.unjudged == ()


def test_a_refused_cell_is_named_with_its_reason():
    whole = grid("batch=[4, 8]")
    predictions = answer(whole)
    refusal = Refused(cell_id=whole.cells[1].cell_id, reason="not covered\n  got: x")
    predictions = predictions.model_copy(
        update={"cells": predictions.cells[:1], "refused": (refusal,)}
    )
    (refused,) = refused_of_program(whole, predictions)
    assert (refused.settings, refused.reason) == ({"arg.batch": 8}, "not covered")
    result = compare(
        baseline(whole), baseline_of_program(whole, predictions, [T4]), refused=[refused]
    )
    assert [one.why for one in result.unjudged] == ["not covered"]
