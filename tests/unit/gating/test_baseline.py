"""Baselines: what they hold, and what cannot be in one."""

import pytest
from pydantic import ValidationError

from ftbench.gating.baseline import Baseline, LargestFit, Measured, MeasuredCell
from ftbench.gating.places import NamedSteps, Place
from tests.factories import part
from tests.unit.gating.made import AXES, baseline_made, place, shape

TWO_GROUPS = AXES | {"attn_implementation": ["sdpa", "eager"]}


def test_fused_attention_is_named():
    fused = part("aten::_scaled_dot_product_efficient_attention")
    group = baseline_made().groups[0].model_copy(update={"parts": (part(), fused)})
    assert group.attention == ("aten::_scaled_dot_product_efficient_attention",)


def test_a_group_is_found_by_its_settings():
    found = baseline_made(blocks=[TWO_GROUPS])
    eager = {"attn_implementation": "eager"}
    assert found.group(eager).settings == eager
    assert found.group({}) is None


def test_largest_batches_go_with_the_last_cell_of_their_length():
    sizes = tuple(LargestFit(gpu="t4", max_length=n, batch=b) for n, b in ((16, 9), (32, 4)))
    group = baseline_made().groups[0].model_copy(update={"largest": sizes})
    assert group.without({shape(32, 4)}).largest == sizes
    assert group.without({shape(32, 4), shape(32, 8)}).largest == sizes[:1]


def test_cells_are_left_out_of_their_own_group_only():
    found = baseline_made(blocks=[TWO_GROUPS])
    left = found.without({place(16, 4, attn_implementation="eager")})
    assert [len(group.cells) for group in left.groups] == [3, 4]
    none = found.without(
        {Place({"attn_implementation": "eager"}, s) for s in left.groups[1].by_cell}
    )
    assert [group.settings for group in none.groups] == [{"attn_implementation": "sdpa"}]


def test_places_with_equal_settings_are_one_though_values_have_no_hash():
    places = [Place({"lr_scheduler_kwargs": {"a": [n]}}, shape()) for n in (1, 1.0, 2)]
    assert len(set(places)) == 2


def doubled(table):
    """Return the data of a baseline with the first row of a table twice, as a careless merge leaves it."""
    found = baseline_made("t4").model_dump(mode="json")
    group = found["groups"][0]
    group["largest"] = [{"gpu": "t4", "max_length": 16, "batch": 9}]
    rows = found["groups"] if table == "groups" else group[table]
    rows.append(rows[0])
    return found


@pytest.mark.parametrize("table", ["groups", "cells", "slopes", "largest"])
def test_the_same_row_twice_is_refused(table):
    with pytest.raises(ValidationError, match="twice"):
        Baseline.model_validate(doubled(table))


def test_the_same_measured_cell_twice_is_refused():
    one, other = (
        MeasuredCell(settings=settings, cell=shape(), figures={}, scores={})
        for settings in ({"bf16": True}, {"bf16": False})
    )
    Measured(machine={}, workload={}, cells=(one, other))
    with pytest.raises(ValidationError, match="twice"):
        Measured(machine={}, workload={}, cells=(one, one))


def test_a_cell_is_a_shape_or_a_name():
    data = baseline_made().model_dump(mode="json")
    for key in ({"name": "step"}, {"max_length": 8, "per_device_train_batch_size": 1}):
        data["groups"][0]["cells"][0]["cell"] = key
        assert Baseline.model_validate(data)
    for key in (
        {"name": ""},
        {"max_length": 8},
        {"name": "a", "max_length": 8},
        "length 8, batch 1",
    ):
        data["groups"][0]["cells"][0]["cell"] = key
        with pytest.raises(ValidationError):
            Baseline.model_validate(data)
    assert NamedSteps(name="step") != shape()
