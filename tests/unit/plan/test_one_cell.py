"""One cell from a model's name: the profile that it is, and the file that says the same."""

import tomllib

import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan.one_cell import Shape, one_cell_data, one_cell_profile, toml_text
from ftbench.plan.profile_file import load_profile
from ftbench.plan.resolve import resolve


def data_of(model="offline:minilm-l6", *overrides, **changes):
    return one_cell_data(Shape(model=model, **changes), overrides)


def refusal(data):
    with pytest.raises(ProfileError) as raised:
        one_cell_profile(data)
    return raised.value


def test_a_shape_is_a_profile_of_one_cell():
    profile = one_cell_profile(
        data_of(length=2048, batch=4, optim="adafactor", task="text-regression", method="head")
    )
    (cell,) = resolve(profile).cells
    assert (cell.max_length, cell.per_device_train_batch_size) == (2048, 4)
    assert cell.settings["optim"] == "adafactor"
    assert (cell.data.task, cell.method) == ("text-regression", "head")
    assert cell.data.source.kind == "synthetic"
    assert cell.model.weights == "pretrained"


def test_a_batch_is_whole_and_an_evaluation_is_no_larger():
    (cell,) = resolve(one_cell_profile(data_of(batch=3))).cells
    assert cell.train_size == 3
    assert cell.settings["per_device_eval_batch_size"] == 3
    assert cell.data.eval_size == 3


def test_weights_of_another_type_are_an_axis_of_the_grid():
    assert data_of(dtype="bfloat16")["grid"][0]["dtype"] == ["bfloat16"]
    assert "dtype" not in data_of()["grid"][0]


def test_settings_override():
    found = data_of(
        "offline:minilm-l6",
        "training.gradient_checkpointing=true",
        "workload.config.num_hidden_layers=2",
        "lora.r=4",
        method="lora",
    )
    (cell,) = resolve(one_cell_profile(found)).cells
    assert cell.settings["gradient_checkpointing"] is True
    assert cell.model.config == (("num_hidden_layers", 2),)
    assert cell.lora.r == 4


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"task": "no-task"}, "--task"),
        ({"optim": "adam"}, "--optim"),
        ({"method": "half"}, "--method"),
        ({"dtype": "int3"}, "--dtype"),
    ],
)
def test_a_value_that_is_not_usable_is_named_by_its_option(changes, option):
    error = refusal(data_of(**changes))
    assert error.where == option
    assert next(iter(changes.values())) in error.got


def test_other_errors_keep_their_place():
    error = refusal(data_of("offline:minilm-l6", "training.learning_rat=1"))
    assert error.where == "estimate-memory: training.learning_rat"


def test_more_than_one_cell_is_refused():
    error = refusal(data_of("offline:minilm-l6", "grid.max_length=[8, 16]"))
    assert error.what == "more than one cell"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "m"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def workload_of(model, **changes):
    return data_of(str(model), **changes)["workload"]


def test_a_config_alone_has_random_weights_and_any_tokenizer(folder):
    for model in (folder, folder / "config.json", "architecture:gpt2"):
        found = workload_of(model)
        assert (found["weights"], found["tokenizer"]) == ("random", "offline:minilm-l6")
        assert found["model"] == str(model)


def test_a_tokenizer_beside_the_config_is_the_model_s(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert workload_of(folder / "config.json")["tokenizer"] == str(folder)
    assert "tokenizer" not in workload_of(folder)


def test_weights_in_the_directory_are_pretrained(folder):
    (folder / "model.safetensors").write_text("")
    assert "weights" not in workload_of(folder)
    assert workload_of(folder / "config.json")["weights"] == "random"


def test_a_tokenizer_that_is_named_is_taken(folder):
    assert workload_of(folder, tokenizer="t")["tokenizer"] == "t"
    assert workload_of("gpt2", tokenizer="t")["tokenizer"] == "t"
    assert "tokenizer" not in workload_of("gpt2")


def test_the_file_says_the_same(tmp_path):
    data = data_of(
        "offline:minilm-l6",
        "workload.config.num_hidden_layers=2",
        "training.learning_rate=1e-5",
        "lora.target_modules=['query', 'value']",
        method="lora",
        batch=2,
    )
    text = toml_text(data)
    assert tomllib.loads(text) == data
    (tmp_path / "own.toml").write_text(text)
    loaded = load_profile(str(tmp_path / "own.toml"))
    assert resolve(loaded).cells == resolve(one_cell_profile(data)).cells


def test_the_file_is_laid_out_as_a_person_would():
    assert toml_text(data_of(batch=2, length=64)) == (
        '[workload]\ntask = "text-classification"\nmodel = "offline:minilm-l6"\n'
        'dataset = "synthetic:full-length"\neval_size = 2\n'
        "\n[[grid]]\nmax_length = [64]\nper_device_train_batch_size = [2]\ntrain_size = [2]\n"
        '\n[training]\noptim = "adamw_torch"\nper_device_eval_batch_size = 2\n'
    )


@pytest.mark.parametrize(
    "value",
    ['a "b" \\ c', "two\nlines", "caf\u00e9 \U0001f600", "\x7f\x00", "", True, 0, -1.5, 1e-8, [], ["a", [1]]],
)  # fmt: skip
def test_values_go_through_toml(value):
    data = {"a": value, "a b": value, "t": {"x": value, "y.z": {"inner": value}}, "u": [{"b": value}]}  # fmt: skip
    assert tomllib.loads(toml_text(data)) == data
