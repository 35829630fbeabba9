"""The settings read from source, against the class itself."""

import dataclasses
from typing import Literal, get_args, get_origin

import pytest

from ftbench.base.errors import ProfileError
from ftbench.plan.training_arguments import RESERVED_ARGUMENTS, check_setting, training_fields


def test_the_source_names_the_same_fields_as_the_class():
    from transformers import TrainingArguments

    assert set(training_fields()) == {field.name for field in dataclasses.fields(TrainingArguments)}


def test_enums_have_the_values_of_the_class():
    from transformers.training_args import OptimizerNames

    assert get_args(training_fields()["optim"]) == tuple(name.value for name in OptimizerNames)
    assert get_origin(training_fields()["eval_strategy"]) is Literal


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e-4),
        ("learning_rate", 1),
        ("num_train_epochs", 2),
        ("bf16", True),
        ("optim", "adafactor"),
        ("eval_strategy", "no"),
        ("save_total_limit", 2),
        ("lr_scheduler_kwargs", {"num_cycles": 2}),
        ("report_to", ["tensorboard"]),
    ],
)
def test_good_settings(name, value):
    check_setting(name, value, where="here")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", "fast", "float"),
        ("num_train_epochs", True, "float"),
        ("max_steps", 1.5, "int"),
        ("bf16", 1, "bool"),
        ("eval_strategy", "epochs", "one of no, steps, epoch"),
    ],
)
def test_wrong_types(name, value, expected):
    with pytest.raises(ProfileError) as caught:
        check_setting(name, value, where="here")
    assert caught.value.expected == expected


def test_a_mistyped_name_gets_the_nearest_one():
    with pytest.raises(ProfileError) as caught:
        check_setting("learning_rat", 1.0, where="p.toml: training.learning_rat")
    assert caught.value.nearest == "learning_rate"
    assert "p.toml: training.learning_rat: unknown key" in str(caught.value)


@pytest.mark.parametrize("name", sorted(RESERVED_ARGUMENTS))
def test_what_the_harness_decides_is_refused_with_the_reason(name):
    with pytest.raises(ProfileError) as caught:
        check_setting(name, "x", where="here")
    assert caught.value.hint == RESERVED_ARGUMENTS[name]


def test_a_value_comes_back_in_its_settings_own_type():
    value = check_setting("num_train_epochs", 2, where="here")
    assert (value, type(value)) == (2.0, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(ProfileError, match="not usable"):
        check_setting("learning_rate", value, where="here")
