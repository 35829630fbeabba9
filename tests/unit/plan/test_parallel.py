"""Several processes in profiles: cells, their names, the arguments of the Trainer, and accelerate's own file."""

import contextlib

import pytest
import yaml

from ftbench.base.errors import ProfileError
from ftbench.plan.accelerate_config import with_accelerate_config
from ftbench.plan.grid import expand
from ftbench.plan.parallel import Parallel
from ftbench.plan.profile_file import load_profile
from ftbench.plan.settings import memory_view
from tests.factories import data_source, model_source, profile


def cells(**changes):
    made = profile(**changes)
    return expand(made, model_source(), data_source()).cells


def test_one_process_is_the_cell_of_before():
    named = cells(num_processes=1, parallel={"strategy": "fsdp2"})
    assert named == cells()
    assert {cell.parallel for cell in named} == {None}


def test_processes_and_strategies_are_axes():
    block = {
        "max_length": [64],
        "per_device_train_batch_size": [8],
        "train_size": [64],
        "num_processes": [1, 4],
        "strategy": ["ddp", "fsdp2"],
    }
    made = cells(grid=[block])
    assert [(cell.num_processes, cell.strategy) for cell in made] == [
        (1, "ddp"),
        (4, "ddp"),
        (4, "fsdp2"),
    ]
    assert len({cell.cell_id for cell in made}) == 3
    assert [cell.parallel and cell.parallel.strategy for cell in made] == [None, "ddp", "fsdp2"]


def test_options_are_those_of_the_strategy():
    options = {"reshard_after_forward": False, "limit_all_gathers": False}
    of_two, of_one, of_ddp = (
        Parallel(strategy="fsdp1", **options).with_strategy(strategy)
        for strategy in ("fsdp2", "fsdp1", "ddp")
    )
    assert of_two.arguments == {
        "fsdp": True,
        "fsdp_config": {"version": 2, "reshard_after_forward": False},
    }
    assert of_one.arguments["fsdp_config"] == {"version": 1, **options}
    assert of_ddp.arguments == {}
    assert of_ddp == Parallel()


def test_an_option_moves_memory_and_has_a_name():
    cell, *_ = cells(
        num_processes=8, parallel={"strategy": "fsdp2", "reshard_after_forward": False}
    )
    view = memory_view(cell.facets)
    assert view["num_processes"] == 8
    assert view["strategy"] == "fsdp2"
    assert view["parallel.reshard_after_forward"] is False


FSDP1 = {
    "distributed_type": "FSDP",
    "num_processes": 4,
    "mixed_precision": "bf16",
    "machine_rank": 0,
    "fsdp_config": {
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_backward_prefetch_policy": "BACKWARD_PRE",
        "fsdp_offload_params": False,
        "fsdp_sharding_strategy": 2,
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_sync_module_states": True,
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer, LlamaMLP",
        "fsdp_use_orig_params": True,
    },
}


def read(folder, given, **data):
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(given))
    parallel = {"accelerate_config": "accelerate.yaml", **data.pop("parallel", {})}
    return with_accelerate_config({"parallel": parallel, **data}, folder)


def test_a_file_of_accelerate_is_read(tmp_path):
    data = read(tmp_path, FSDP1)
    assert data["num_processes"] == 4
    assert data["training"] == {"bf16": True}
    parallel = Parallel.model_validate(data["parallel"])
    assert parallel == Parallel(
        strategy="fsdp1",
        reshard_after_forward="shard_grad_op",
        auto_wrap_policy="TRANSFORMER_BASED_WRAP",
        transformer_layer_cls_to_wrap=("LlamaDecoderLayer", "LlamaMLP"),
        backward_prefetch="BACKWARD_PRE",
        sync_module_states=True,
        use_orig_params=True,
    )


def test_the_version_is_the_strategy(tmp_path):
    given = FSDP1 | {"fsdp_config": {"fsdp_version": 2, "fsdp_reshard_after_forward": True}}
    assert read(tmp_path, given)["parallel"] == {"strategy": "fsdp2", "reshard_after_forward": True}
    multi = {"distributed_type": "MULTI_GPU", "num_processes": 2, "mixed_precision": "no"}
    assert read(tmp_path, multi)["parallel"] == {"strategy": "ddp"}


def test_the_profile_wins_over_the_file(tmp_path):
    data = read(
        tmp_path,
        FSDP1,
        num_processes=8,
        training={"bf16": False},
        parallel={"reshard_after_forward": "full_shard"},
    )
    assert data["num_processes"] == 8
    assert data["training"] == {"bf16": False}
    assert data["parallel"]["reshard_after_forward"] == "full_shard"
    assert "num_processes" not in read(tmp_path, FSDP1, grid=[{"num_processes": [2]}])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"distributed_type": "DEEPSPEED"}, "DEEPSPEED"),
        ({"distributed_type": "MEGATRON_LM"}, "MEGATRON_LM"),
        ({"mixed_precision": "fp8"}, "fp8"),
        ({"fsdp_config": {"fsdp_offload_params": True}}, "offload"),
    ],
)
def test_what_is_not_predicted_is_refused_by_name(tmp_path, changes, named):
    with pytest.raises(ProfileError, match=named):
        read(tmp_path, FSDP1 | changes)


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b", ""])
def test_what_is_no_file_of_accelerate_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ProfileError, match="accelerate_config"):
        with_accelerate_config({"parallel": {"accelerate_config": "bad.yaml"}}, tmp_path)


def test_an_unknown_field_of_the_file_is_named(tmp_path):
    given = FSDP1 | {"fsdp_config": {"fsdp_magic": 1}}
    (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump(given))
    toml = tmp_path / "mine.toml"
    toml.write_text(
        '[workload]\nmodel = "architecture:bert"\nweights = "random"\n'
        'dataset = "synthetic:full-length"\neval_size = 8\n'
        '[parallel]\naccelerate_config = "accelerate.yaml"\n'
        "[[grid]]\nmax_length = [64]\nper_device_train_batch_size = [8]\ntrain_size = [8]\n"
    )
    with pytest.raises(ProfileError, match="magic"):
        load_profile(str(toml))


@pytest.mark.parametrize(
    ("strategy", "instead"),
    [
        ("deepspeed", "stage 3 fsdp2"),
        ("zero2", "reshard_after_forward"),
        ("zero3", "fsdp2"),
        ("megatron", "Megatron-LM"),
        ("fsdp", "fsdp1"),
        ("tp", "FILE.py:FACTORY"),
    ],
)
def test_strategies_that_are_known_and_refused_say_what_to_write(strategy, instead):
    with pytest.raises(ProfileError, match=instead):
        profile(num_processes=2, parallel={"strategy": strategy})
    with pytest.raises(ProfileError, match=instead):
        profile(num_processes=2, grid=[{"strategy": [strategy]}])


def test_zero_1_is_ddp_to_the_trainer():
    (made,) = cells(
        num_processes=2,
        parallel={"strategy": "zero1"},
        training={"save_strategy": "no"},
        grid=[{"max_length": [64], "per_device_train_batch_size": [8], "train_size": [64]}],
    )
    assert (made.strategy, made.parallel.arguments) == ("zero1", {})


@pytest.mark.parametrize(
    ("training", "accepted"),
    [
        ({}, False),
        ({"save_only_model": True}, True),
        ({"save_strategy": "no"}, True),
    ],
)
def test_states_of_zero_1_are_not_saved(training, accepted):
    context = contextlib.nullcontext() if accepted else pytest.raises(ProfileError, match="saving")
    with context:
        cells(num_processes=2, parallel={"strategy": "zero1"}, training=training)


@pytest.mark.parametrize("optim", ["adamw_bnb_8bit", "paged_adamw_32bit", "adafactor"])
def test_zero_1_has_optimizers_of_torch_only(optim):
    training = {"save_strategy": "no", "optim": optim}
    with pytest.raises(ProfileError, match="not sharded"):
        cells(num_processes=2, parallel={"strategy": "zero1"}, training=training)
    assert cells(num_processes=2, training=training)
