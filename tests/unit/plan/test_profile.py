import inspect
import json

import pytest
from peft import LoraConfig

from ftbench.base.errors import ProfileError
from ftbench.plan.profile import LoraSettings, Profile
from ftbench.plan.profile_file import (
    find_profile,
    load_profile,
    parse_assignment,
    parse_selection,
    parse_value,
    profile_names,
)
from tests.factories import profile, profile_data


def refusal(data=None, **changes) -> ProfileError:
    from ftbench.plan.profile_file import build_profile

    with pytest.raises(ProfileError) as caught:
        build_profile(data or profile_data(**changes), where="p.toml")
    return caught.value


@pytest.mark.parametrize("name", ["quick", "smoke", "offline", "imdb-distilbert"])
def test_shipped_profiles_load(name):
    assert load_profile(name).name == name
    assert name in profile_names()


def test_the_seed_recipe_is_in_its_profile():
    seed = load_profile("imdb-distilbert")
    assert seed.workload.model == "distilbert-base-uncased"
    assert (seed.workload.dataset, seed.workload.eval_size, seed.workload.shuffle_seed) == (
        "imdb",
        1000,
        42,
    )
    block = seed.grid[0]
    assert block.max_length == (128, 256, 512)
    assert block.per_device_train_batch_size == (8, 16, 32)
    assert block.train_size == (1000, 5000, 25000)
    assert seed.settings == {
        "num_train_epochs": 3,
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "per_device_eval_batch_size": 8,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "steps",
        "logging_steps": 100,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "report_to": "none",
        "seed": 42,
    }


def test_a_profile_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        profile().name = "other"


def test_no_checkpoint_no_best_model():
    assert profile(training={"save_strategy": "no"}).settings["load_best_model_at_end"] is False
    kept = {"save_strategy": "no", "load_best_model_at_end": True}
    assert profile(training=kept).settings["load_best_model_at_end"] is True  # prepare refuses it


def test_unknown_keys_get_the_nearest_name():
    assert refusal(workload={"modle": "x"}).nearest == "model"
    assert refusal(run={"timeout": 3}).nearest == "timeout_s"
    error = refusal(
        grid=[{"max_lenght": [8], "per_device_train_batch_size": [4], "train_size": [8]}]
    )
    assert error.where == "p.toml: grid[1].max_length"  # missing comes first
    block = profile_data()["grid"][0]
    assert refusal(grid=[block | {"learning_rat": [1e-4]}]).nearest == "learning_rate"
    assert refusal(training={"sed": 3}).nearest == "seed"
    assert refusal(lora={"alpha": 3}).nearest == "lora_alpha"
    assert refusal(grid=[block | {"method": ["loro"]}]).nearest == "lora"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"workload": {"eval_size": 0}}, "workload.eval_size"),
        ({"workload": {"eval_size": True}}, "workload.eval_size"),
        ({"workload": {"eval_size": "8"}}, "workload.eval_size"),
        ({"run": {"replicates": 1.5}}, "run.replicates"),
        ({"run": {"isolation": "fork"}}, "run.isolation"),
        ({"run": {"timeout_s": -1}}, "run.timeout_s"),
        ({"padding": "left"}, "padding"),
        ({"method": "half"}, "method"),
        ({"lora": {"r": 0}}, "lora.r"),
        ({"lora": {"lora_dropout": 1}}, "lora.lora_dropout"),
        ({"lora": {"target_modules": []}}, "lora.target_modules"),
        ({"lora": {"target_modules": ["query", 3]}}, "lora.target_modules"),
        ({"grid": []}, "grid"),
    ],
)
def test_wrong_values_name_their_key(changes, where):
    error = refusal(**changes)
    assert error.where.startswith(f"p.toml: {where}")
    assert error.expected


@pytest.mark.parametrize(
    "axis", ["max_length", "per_device_train_batch_size", "train_size", "seed"]
)
@pytest.mark.parametrize("values", [[0.5], ["8"], [-1], [True]])
def test_axis_values_of_the_wrong_kind(axis, values):
    block = profile_data()["grid"][0]
    assert f"grid[1].{axis}" in refusal(grid=[block | {axis: values}]).where


def test_all_members_of_a_union_are_expected():
    error = refusal(lora={"target_modules": 3})
    assert (error.where, error.got) == ("p.toml: lora.target_modules", "3 (int)")
    assert "string" in error.expected
    assert "list" in error.expected
    error = refusal(workload={"where": {"label": []}})
    assert error.where == "p.toml: workload.where.label"
    assert all(kind in error.expected for kind in ("boolean", "integer", "number", "string"))
    error = refusal(run={"timeout_s": "x"})
    assert (error.where, error.got) == ("p.toml: run.timeout_s", "'x' (str)")
    assert "string" not in error.expected


def test_an_error_is_of_the_member_that_is_wrong():
    error = refusal(lora={"target_modules": ["query", 3]})
    assert (error.where, error.got) == ("p.toml: lora.target_modules[2]", "3 (int)")
    error = refusal(grid=[profile_data()["grid"][0] | {"method": ["lora", "loro"]}])
    assert (error.where, error.got) == ("p.toml: grid[1].method[2]", "'loro' (str)")


def test_an_error_of_a_table_does_not_show_all_of_it():
    error = refusal(workload={"text_column": "label"})
    assert (error.where, error.got) == ("p.toml: workload", None)
    assert "text_column" in error.expected


def test_loras_settings_are_pefts():
    names = inspect.signature(LoraConfig).parameters
    assert set(LoraSettings.model_fields) <= set(names)
    assert profile(lora={"lora_dropout": 0}).lora.lora_dropout == 0.0
    assert profile(lora={"target_modules": ["query"]}).lora.target_modules == ("query",)


def test_an_empty_axis():
    block = profile_data()["grid"][0]
    error = refusal(grid=[block | {"max_length": []}])
    assert (error.where, error.got) == ("p.toml: grid[1].max_length", "[] (list)")
    assert refusal(grid=[block | {"weight_decay": []}]).where == "p.toml: grid[1].weight_decay"


def test_a_value_twice():
    block = profile_data()["grid"][0]
    assert refusal(grid=[block | {"max_length": [16, 16]}]).what == "the same value twice"


def test_an_axis_that_training_sets_too():
    block = profile_data()["grid"][0]
    error = refusal(grid=[block | {"weight_decay": [0.0, 0.1]}], training={"weight_decay": 0.1})
    assert error.what == "set twice"


def test_a_star_needs_a_center_on_its_axes():
    block = profile_data()["grid"][0]
    assert "not an axis" in refusal(grid=[block | {"design": "star", "center": {"x": 1}}]).expected
    assert (
        "not among"
        in refusal(grid=[block | {"design": "star", "center": {"max_length": 1}}]).expected
    )
    assert "has a centre" in refusal(grid=[block | {"center": {"max_length": 16}}]).expected


def test_broken_toml_names_file_and_line(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text("[workload\n")
    with pytest.raises(ProfileError, match=r"p.toml: not valid TOML: .*line 1"):
        load_profile(str(file))


def test_a_profile_that_is_not_there():
    with pytest.raises(ProfileError) as caught:
        find_profile("quik")
    assert caught.value.nearest == "quick"
    with pytest.raises(ProfileError, match="no such profile"):
        find_profile("./none.toml")


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "p.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(str(file))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("3", 3),
        ("true", True),
        ("[8, 16]", [8, 16]),
        ('"a b"', "a b"),
        ("word", "word"),
        ("offline:minilm-l6", "offline:minilm-l6"),
        ("org/name", "org/name"),
    ],
)
def test_parse_value(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["[1", '"open', "{a", ""])
def test_parse_value_refuses(text):
    with pytest.raises(ProfileError, match="not a TOML value"):
        parse_value(text)


@pytest.mark.parametrize("text", ["", "x", "=3", "a b=3", "1x=3"])
def test_not_an_assignment(text):
    with pytest.raises(ProfileError, match=r"--set: not an assignment"):
        parse_assignment(text, option="--set")


def test_parse_selection():
    selection = parse_selection("max_length=128,padding=longest", option="--only")
    assert selection == {"max_length": 128, "padding": "longest"}


def test_overrides_reach_every_table():
    changed = load_profile(
        "quick",
        ["training.learning_rate=5e-5", "run.replicates=3", "workload.config.num_hidden_layers=2"],
    )
    assert changed.settings["learning_rate"] == 5e-5
    assert changed.run.replicates == 3
    assert changed.workload.config == {"num_hidden_layers": 2}
    assert changed.overrides[0] == "training.learning_rate=5e-5"


def test_a_grid_override_replaces_the_axis_in_every_block():
    changed = load_profile("quick", ["grid.max_length=[16]", "grid.train_size=8"])
    assert {block.max_length for block in changed.grid} == {(16,)}
    assert {block.train_size for block in changed.grid} == {(8,)}


def test_a_setting_can_be_made_an_axis():
    changed = load_profile("quick", ["grid.learning_rate=[1e-4, 2e-4]"])
    assert changed.grid[0].axes["learning_rate"] == (1e-4, 2e-4)
    assert "learning_rate" not in changed.training


def test_an_override_of_something_that_is_no_table():
    with pytest.raises(ProfileError, match="not a table"):
        load_profile("quick", ["description.x=1"])


def test_the_schema_is_json():
    assert "workload" in json.loads(json.dumps(Profile.model_json_schema()))["properties"]


def test_a_pair_of_texts_is_two_columns():
    two = profile(workload={"text_column": ["premise", "hypothesis"]})
    assert two.workload.text_column == ("premise", "hypothesis")


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"text_column": ["text", "label"]}, "two columns"),
        ({"text_column": ["text", "text"]}, "two columns"),
        ({"task": "text-regression", "balanced": True}, "balanced"),
        ({"text_column": ["a", "b", "c"]}, "text_column"),
        ({"text_column": []}, "text_column"),
        ({"task": "text-generation"}, "task"),
    ],
)
def test_a_workload_that_contradicts_itself(workload, words):
    assert words in str(refusal(workload=workload))


def test_a_regression_chooses_its_checkpoint_by_the_loss():
    regression = {"task": "text-regression"}
    assert profile(workload=regression).settings["metric_for_best_model"] == "loss"
    assert profile().settings["metric_for_best_model"] == "accuracy"
    asked = {"metric_for_best_model": "pearson"}
    assert (
        profile(workload=regression, training=asked).settings["metric_for_best_model"] == "pearson"
    )


@pytest.mark.parametrize("name", ["mse", "eval_mse"])
def test_transformers_is_told_which_scores_should_be_low(name):
    """It takes every metric whose name does not end in `loss` for one that should be high."""
    of = {"workload": {"task": "text-regression"}}
    found = profile(**of, training={"metric_for_best_model": name}).settings
    assert found["greater_is_better"] is False
    said = {"metric_for_best_model": name, "greater_is_better": True}
    assert profile(**of, training=said).settings["greater_is_better"] is True
    assert "greater_is_better" not in profile(**of).settings
    assert "greater_is_better" not in profile().settings


@pytest.mark.parametrize(
    "workload",
    [
        {"task": "causal-lm", "completion_column": "answer"},
        {"task": "seq2seq-lm", "completion_column": "target", "max_target_length": 9},
        {"task": "masked-lm", "mlm_probability": 0.3},
        {"task": "token-classification"},
        {"task": "causal-lm", "messages_column": "messages"},
        {"task": "causal-lm", "messages_column": "messages", "assistant_only_loss": True},
    ],
)
def test_a_task_s_settings_are_read_again_as_they_were_written(workload):
    of = profile(workload=workload)
    assert type(of).model_validate_json(of.model_dump_json()) == of


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        ({"completion_column": "answer"}, "completion_column"),
        ({"task": "masked-lm", "messages_column": "m"}, "messages_column"),
        ({"mlm_probability": 0.3}, "mlm_probability"),
        ({"task": "causal-lm", "assistant_only_loss": True}, "assistant_only_loss"),
        ({"assistant_only_loss": True}, "assistant_only_loss"),
        ({"task": "seq2seq-lm"}, "completion_column"),
        (
            {"task": "causal-lm", "completion_column": "a", "messages_column": "m"},
            "messages_column",
        ),
        ({"task": "causal-lm", "completion_column": "text"}, "completion_column"),
        ({"task": "causal-lm", "text_column": ["a", "b"]}, "text_column"),
        ({"task": "causal-lm", "balanced": True}, "balanced"),
    ],
)
def test_settings_of_other_tasks_are_refused(workload, name):
    with pytest.raises(ProfileError, match=name):
        profile(workload=workload)


def test_only_a_language_model_s_texts_are_packed():
    assert profile(workload={"task": "causal-lm"}, packing="concatenate").packing == "concatenate"
    with pytest.raises(ProfileError, match="packing"):
        profile(packing="concatenate")
