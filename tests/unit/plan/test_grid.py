import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.base.errors import ProfileError
from ftbench.plan.cell import Cell
from ftbench.plan.grid import axis_order, expand, kept_cells, on_gpus, selects
from tests.factories import cell, data_source, grid, model_source, profile


def blocks(*changes):
    base = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [8]}
    return [base | change for change in changes]


def points(of, *names):
    return [tuple(c.value(name) for name in names) for c in of.cells]


def test_a_factorial_block_is_crossed():
    found = points(grid(), "max_length", "per_device_train_batch_size", "train_size")
    assert found == [(16, 4, 16), (16, 8, 16), (32, 4, 16), (32, 8, 16)]


def test_a_star_varies_one_axis_at_a_time():
    star = {"design": "star", "max_length": [16, 32, 64], "train_size": [8, 80]}
    found = points(grid(grid=blocks(star)), "max_length", "train_size")
    assert found == [(16, 8), (32, 8), (64, 8), (16, 80)]


def test_a_star_around_a_center_of_its_own():
    star = {
        "design": "star",
        "max_length": [16, 32],
        "train_size": [8, 80],
        "center": {"train_size": 80},
    }
    found = points(grid(grid=blocks(star)), "max_length", "train_size")
    assert found == [(16, 80), (32, 80), (16, 8)]


def test_a_grid_is_the_union_of_its_blocks():
    both = grid(grid=blocks({"max_length": [16, 32]}, {"max_length": [32, 64]}))
    assert points(both, "max_length") == [(16,), (32,), (64,)]
    assert {axis.name: axis.values for axis in both.axes}["max_length"] == (16, 32, 64)


def test_numbers_of_gpus_take_the_place_of_those_of_a_profile():
    given = profile(grid=blocks({"num_processes": [2]}, {"max_length": [32]}), num_processes=16)
    found = expand(on_gpus(given, (1, 8)), model_source(), data_source())
    assert points(found, "max_length", "num_processes") == [(16, 1), (16, 8), (32, 1), (32, 8)]


def test_a_star_is_repeated_on_each_number_of_gpus():
    star = {
        "design": "star",
        "max_length": [16, 32],
        "num_processes": [2, 4],
        "center": {"num_processes": 4, "max_length": 32},
    }
    given = on_gpus(profile(grid=blocks(star)), (1, 8))
    found = expand(given, model_source(), data_source())
    assert points(found, "max_length", "num_processes") == [(16, 1), (32, 1), (16, 8), (32, 8)]


@given(
    st.lists(st.integers(1, 512), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([1e-5, 2e-5, 1e-4]), min_size=1, unique=True),
)
def test_a_factorial_grid_has_the_product_of_its_axes(lengths, batches, rates):
    axes = {"max_length": lengths, "per_device_train_batch_size": batches, "learning_rate": rates}
    found = grid(grid=blocks(axes))
    assert len(found.cells) == math.prod(map(len, axes.values()))
    assert len({c.cell_id for c in found.cells}) == len(found.cells)


def test_any_training_argument_can_be_an_axis():
    axes = {
        "weight_decay": [0.0, 0.1],
        "attn_implementation": ["eager", "sdpa"],
        "padding": ["longest"],
    }
    found = grid(grid=blocks(axes))
    assert set(points(found, "weight_decay", "attn_implementation", "padding")) == {
        (0.0, "eager", "longest"),
        (0.0, "sdpa", "longest"),
        (0.1, "eager", "longest"),
        (0.1, "sdpa", "longest"),
    }


def test_a_cell_is_hashable_and_survives_json():
    one = cell(lr_scheduler_type="cosine")
    back = Cell.model_validate_json(one.model_dump_json())
    assert back == one
    assert hash(back) == hash(one)
    assert back.cell_id == one.cell_id


def test_settings_keep_their_types():
    one = grid(training={"lr_scheduler_kwargs": {"num_cycles": 2}, "report_to": ["none"]}).cells[0]
    assert one.settings["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert one.settings["report_to"] == ["none"]
    hash(one)


def test_a_cell_is_named_by_content_and_not_by_place():
    base = cell()
    moved = model_source().source.model_copy(
        update={"location": "/elsewhere", "reference": "other"}
    )
    same = expand(profile(), model_source(source=moved, tokenizer=moved), data_source()).cells[0]
    assert same.cell_id == expand(profile(), model_source(), data_source()).cells[0].cell_id
    changed = model_source().source.model_copy(update={"revision": "sha256:other"})
    other = expand(profile(), model_source(source=changed), data_source()).cells[0]
    assert other.cell_id != base.cell_id


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 17},
        {"train_size": 9},
        {"per_device_train_batch_size": 5},
        {"seed": 1},
        {"padding": "longest"},
    ],
)
def test_every_axis_is_in_the_name(change):
    assert cell(**change).cell_id != cell().cell_id


def test_the_name_of_a_cell_does_not_drift():
    # Records are found by this name: a change of it loses every run directory.
    assert cell().cell_id == cell().cell_id == "ca6cb733575b"


def test_full_fine_tuning_has_the_name_it_had_before_there_were_methods():
    assert cell(method="full").cell_id == "ca6cb733575b"
    old = cell().model_dump(mode="json")
    for later in ("method", "lora", "malloc", "dtype", "quantization"):
        del old[later]
    assert Cell.model_validate(old) == cell()
    assert cell().cell_id not in {cell(method="head").cell_id, cell(method="lora").cell_id}


def test_what_the_c_library_does_is_part_of_a_cell():
    assert cell(malloc="default").cell_id == "ca6cb733575b"
    assert cell(malloc="keep").cell_id != cell().cell_id
    both = grid(grid=blocks({}, {"malloc": ["keep", "default"]}))
    assert {axis.name: axis.values for axis in both.axes}["malloc"] == ("keep", "default")
    assert len(both.cells) == 2  # the first block's cell is the second's, too


def test_float32_weights_have_the_name_they_had_before_there_were_other_types():
    assert cell(dtype="float32").cell_id == "ca6cb733575b"
    types = ("float32", "bfloat16", "float16")
    assert len({cell(dtype=dtype).cell_id for dtype in types}) == 3
    (axis,) = (axis for axis in grid(grid=blocks({"dtype": types})).axes if axis.name == "dtype")
    assert axis.values == types


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, "float32"),
        ({"bf16": True}, "bfloat16"),
        ({"fp16": True}, "float16"),
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16", "bf16": True}, "bfloat16"),
    ],
)
def test_products_have_autocasts_type_or_that_of_the_weights(settings, dtype):
    assert cell(**settings).product_dtype == dtype


def test_loras_settings_are_in_its_cells_and_in_no_others():
    for method, same in (("full", True), ("head", True), ("lora", False)):
        usual, wide = (grid(method=method, **more).cells[0] for more in ({}, {"lora": {"r": 64}}))
        assert (usual == wide) == (usual.cell_id == wide.cell_id) == same
        assert (wide.lora is None) == same


def test_methods_differ_in_one_facet_unless_loras_settings_are_unusual():
    def differing(**changes):
        one, other = (grid(method=m, **changes).cells[0].facets for m in ("full", "lora"))
        return {name for name in other if one.get(name) != other[name]}

    assert differing() == {"method"}
    chosen = {"r": 64, "lora_dropout": 0.1, "target_modules": ["query"]}
    assert differing(lora=chosen) == {"method", "lora.r", "lora.target_modules"}


def test_a_block_that_leaves_an_axis_to_the_profile_can_be_selected_by_it():
    both = grid(
        grid=blocks({}, {"method": ["head"], "weight_decay": [0.1]}), training={"max_steps": 5}
    )
    assert {axis.name: axis.values for axis in both.axes}["method"] == ("head", "full")
    assert points(both.only({"method": "full"}), "weight_decay") == [(0.01,)]
    assert points(both.only({"method": "head"}), "weight_decay") == [(0.1,)]


def test_only_takes_a_part():
    part = grid().only({"max_length": 32})
    assert {c.max_length for c in part.cells} == {32}
    assert selects({}, part.cells[0])


@pytest.mark.parametrize(
    ("selection", "what"),
    [
        ({"max_lenght": 16}, "not an axis"),
        ({"max_length": 17}, "no cell has this value"),
    ],
)
def test_only_refuses(selection, what):
    with pytest.raises(ProfileError, match=what):
        grid().only(selection)


def test_only_refuses_values_that_never_meet():
    apart = grid(grid=blocks({"train_size": [8]}, {"max_length": [64], "train_size": [80]}))
    with pytest.raises(ProfileError, match="all of these"):
        apart.only({"max_length": 16, "train_size": 80})


def test_axis_order():
    assert axis_order(["z", "train_size", "a", "max_length"]) == [
        "max_length",
        "train_size",
        "a",
        "z",
    ]


def test_checkpoints_are_kept_by_name():
    selection = "max_length=16,per_device_train_batch_size=8"
    (kept,) = kept_cells(profile(run={"keep_checkpoints": [selection]}), grid())
    assert (kept.max_length, kept.per_device_train_batch_size) == (16, 8)
    assert kept_cells(profile(), grid()) == frozenset()


def test_keeping_the_checkpoints_of_no_cell_is_an_error():
    with pytest.raises(ProfileError, match=r"run.keep_checkpoints max_length"):
        kept_cells(profile(run={"keep_checkpoints": ["max_length=99"]}), grid())
    with pytest.raises(ProfileError) as caught:
        kept_cells(profile(run={"keep_checkpoints": ["max_lenght=16"]}), grid())
    assert caught.value.nearest == "max_length"


def test_the_same_work_has_the_same_name_however_it_is_written():
    assert (
        grid(training={"num_train_epochs": 2}).cells
        == grid(training={"num_train_epochs": 2.0}).cells
    )


def test_an_axis_of_tables():
    options = [{"num_cycles": 1}, {"num_cycles": 2}]
    found = grid(grid=blocks({"lr_scheduler_kwargs": options}))
    assert [c.settings["lr_scheduler_kwargs"] for c in found.cells] == options
    assert found.only({"lr_scheduler_kwargs": '{"num_cycles": 2}'}).cells == found.cells[1:]


def test_the_best_model_is_loaded_only_where_there_is_one():
    found = grid(grid=blocks({"save_strategy": ["no", "epoch"]}))
    assert [c.settings["load_best_model_at_end"] for c in found.cells] == [False, True]


def test_facets_tell_all_that_differs():
    deeper = model_source(config=(("num_hidden_layers", 2),))
    one, two = (expand(profile(), m, data_source()).cells[0] for m in (model_source(), deeper))
    assert {k for k in two.facets if two.facets[k] != one.facets.get(k)} == {
        "config.num_hidden_layers"
    }


def test_a_setting_written_out_at_its_default_is_the_same_cell_as_one_left_out():
    usual, written, other = (
        cell(**axes)
        for axes in ({}, {"gradient_accumulation_steps": 1, "bf16": False}, {"bf16": True})
    )
    assert written.cell_id == usual.cell_id != other.cell_id
    assert written.value("bf16") is False
    assert dict(written.facets) == dict(usual.facets)


def test_another_spelling_of_a_default_is_one_value_of_an_axis():
    axes = {"max_length": [16], "per_device_train_batch_size": [4], "train_size": [16]}
    found = grid(grid=[{**axes, "include_num_input_tokens_seen": ["no", "all"]}])
    (axis,) = (one for one in found.axes if one.name == "include_num_input_tokens_seen")
    assert axis.values == ("no", "all")
    spelled = grid(grid=[{**axes, "neftune_noise_alpha": [0.0, 5.0]}])
    assert len(spelled.only({"neftune_noise_alpha": 0.0}).cells) == 1
    assert len(spelled.only({"neftune_noise_alpha": 5.0}).cells) == 1


@pytest.mark.parametrize("design", ["factorial", "star"])
def test_a_grid_that_nobody_could_run_is_refused_before_it_is_made(design):
    block = {
        "design": design,
        "max_length": [16],
        "per_device_train_batch_size": list(range(1, 15_001)),
        "train_size": list(range(1, 15_001)),
    }
    with pytest.raises(ProfileError, match="more cells") as caught:
        grid(grid=[block])
    assert caught.value.got == ("225,000,000" if design == "factorial" else "30,001")
