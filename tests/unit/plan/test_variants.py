"""What else a training could be: the axes of a search, the order of their cost, and the lines of a profile."""

import tomllib

import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan.grid import expand
from ftbench.plan.variants import axes_searched, changes_in_toml, variants
from tests.factories import data_source, model_source, profile

BLOCK = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [8]}


def searched(over=(), gpus=(), **changes):
    made = profile(**({"grid": [BLOCK]} | changes))
    grid = expand(made, model_source(), data_source())
    axes = axes_searched(made, grid.cells[0], over, gpus)
    found, contradicting = variants(made, grid, grid.cells[0], axes)
    return [dict(one.values) for one in found], contradicting, grid, found


def test_without_a_word_only_what_trains_the_same_model_is_searched():
    found, contradicting, _, ways = searched(gpus=(2, 1))
    assert found == [
        {"num_processes": 1, "gradient_checkpointing": False},
        {"num_processes": 1, "gradient_checkpointing": True},
        {"num_processes": 2, "gradient_checkpointing": False, "strategy": "ddp"},
        {"num_processes": 2, "gradient_checkpointing": False, "strategy": "fsdp2"},
        {"num_processes": 2, "gradient_checkpointing": True, "strategy": "ddp"},
        {"num_processes": 2, "gradient_checkpointing": True, "strategy": "fsdp2"},
    ]
    assert contradicting == 0
    assert {one.departures for one in ways} == {()}


def test_departures_come_after_all_that_trains_the_profiles_model_on_as_many_cards():
    over = ("method=lora,full", "optim=sgd", "gradient_checkpointing=false")
    found, _, _, ways = searched(over, (1, 2), training={"optim": "adamw_torch"})
    order = [(d["num_processes"], d["method"], d["optim"]) for d in found]
    assert list(dict.fromkeys(order)) == [
        (n, method, optim)
        for n in (1, 2)
        for method, optim in (
            ("full", "adamw_torch"),
            ("full", "sgd"),
            ("lora", "adamw_torch"),
            ("lora", "sgd"),
        )
    ]
    assert [one.departures for one in ways if one.gpus == 1] == [
        (),
        ("optim",),
        ("method",),
        ("method", "optim"),
    ]


def test_one_departure_comes_before_two():
    over = ("method=lora", "optim=sgd", "dtype=bfloat16", "gradient_checkpointing=false")
    _, _, _, ways = searched(over)
    assert [len(one.departures) for one in ways] == [0, 1, 1, 1, 2, 2, 2, 3]
    assert [one.departures for one in ways[1:4]] == [("dtype",), ("optim",), ("method",)]


def test_the_profiles_own_numbers_strategy_and_checkpointing_are_there():
    found, *_ = searched(
        num_processes=4,
        parallel={"strategy": "fsdp1"},
        training={"gradient_checkpointing": True},
    )
    assert {one["num_processes"] for one in found} == {4}
    assert [one["strategy"] for one in found] == ["ddp", "fsdp2", "fsdp1"] * 2
    only, *_ = searched(("strategy=fsdp2", "gradient_checkpointing=true"), (8,))
    assert only == [{"num_processes": 8, "gradient_checkpointing": True, "strategy": "fsdp2"}]


def test_settings_that_cannot_go_together_are_counted_and_left_out():
    found, contradicting, *_ = searched(
        ("method=full,lora", "quantization=none,nf4", "gradient_checkpointing=false")
    )
    assert contradicting == 1
    assert ("full", "nf4") not in {(one["method"], one["quantization"]) for one in found}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ("max_length=8,16", "max_length"),
        ("num_processes=2", "num_processes"),
        ("mehtod=lora", "mehtod"),
        ("method=half", "method"),
        ("optim=3,true", "optim"),
        ("=", "--over"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(over, named):
    with pytest.raises(ProfileError, match=named):
        searched((over,))


def test_the_lines_of_a_profile_make_the_chosen_cell():
    axis = {"gradient_checkpointing": [False]}
    over = ("method=lora", "optim=sgd", "strategy=fsdp2", "gradient_checkpointing=true")
    _, _, grid, ways = searched(over, (8,), grid=[BLOCK | axis])
    cell, chosen = grid.cells[0], ways[-1].cell.with_shape(7, 16)
    names = [name for name, _ in ways[-1].values]
    lines = changes_in_toml(grid, cell, chosen, names)
    changed = tomllib.loads("\n".join(lines))
    (block,) = changed.pop("grid")
    assert block == {"gradient_checkpointing": [True], "per_device_train_batch_size": [7]}
    (made,) = expand(
        profile(grid=[BLOCK | axis | block], **changed), model_source(), data_source()
    ).cells
    assert made == chosen
    assert changes_in_toml(grid, cell, cell, names) == []
