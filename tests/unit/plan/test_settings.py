"""The table of settings, held against the installed transformers."""

import dataclasses

import pytest

from ftbench.plan.settings import (
    COSTLESS,
    NOT_SEARCHED,
    SETTINGS,
    SHAPE,
    differing,
    is_default,
    memory_view,
    moving,
    setting,
    without_defaults,
)
from ftbench.plan.training_arguments import RESERVED_ARGUMENTS, training_fields

GONE = {"warmup_ratio"}  # of transformers before 5.23


def test_every_training_argument_is_classified_or_reserved():
    known = set(SETTINGS) | set(RESERVED_ARGUMENTS)
    assert set(training_fields()) - known == set()


def test_the_table_has_no_argument_that_transformers_lacks():
    from ftbench.plan.settings import ARGUMENTS

    assert {one.name for one in ARGUMENTS} - set(training_fields()) <= GONE


def test_defaults_are_those_of_the_installed_transformers():
    from transformers import TrainingArguments

    for field in dataclasses.fields(TrainingArguments):
        if field.name in RESERVED_ARGUMENTS or field.name in SHAPE:
            continue
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default
        assert is_default(field.name, default), field.name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_train_epochs", 3, True),  # 3.0 there: one number
        ("gradient_accumulation_steps", 1, True),
        ("gradient_accumulation_steps", True, False),
        ("gradient_checkpointing", None, True),
        ("gradient_checkpointing", False, True),
        ("gradient_checkpointing", True, False),
        ("include_for_metrics", [], True),
        ("bf16", 0, False),
        ("of_a_newer_transformers", None, False),
    ],
)
def test_what_is_written_out_at_its_default(name, value, expected):
    assert is_default(name, value) is expected


def test_settings_without_defaults_keep_the_names_asked_for():
    settings = {"bf16": False, "optim": "sgd", "weight_decay": 0.0}
    assert without_defaults(settings, kept={"weight_decay"}) == {
        "optim": "sgd",
        "weight_decay": 0.0,
    }


def test_what_is_logged_and_where_moves_no_byte_and_no_score():
    for name in ("report_to", "logging_steps", "run_name"):
        assert name not in moving("memory", "rss", "accuracy")
    assert "num_train_epochs" not in moving("memory", "step_time")
    assert "num_train_epochs" in moving("run_time") & moving("accuracy")


def test_costless_settings_are_numbers_of_the_optimizer_and_seeds():
    assert {
        "learning_rate",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "adam_beta1",
        "seed",
    } <= COSTLESS
    assert not {"optim", "weight_decay", "bf16", "num_train_epochs", "malloc"} & COSTLESS


def test_memory_depends_on_whether_there_is_a_weight_decay():
    views = [memory_view({"weight_decay": value}) for value in (0.01, 0.1, 0.0)]
    assert views[0] == views[1] != views[2]


def test_what_the_table_does_not_know_moves_everything():
    assert setting("of_a_newer_transformers").moves >= {"memory", "step_time", "accuracy"}
    assert memory_view({"of_a_newer_transformers": 1, "eval_size": 5}) == {
        "of_a_newer_transformers": 1,
        "eval_size": 5,
    }


def test_a_batch_search_is_made_once_for_seeds_and_learning_rates():
    assert {"seed", "learning_rate", "train_size", "per_device_train_batch_size"} <= NOT_SEARCHED
    assert not {"max_length", "bf16", "malloc", "optim"} & NOT_SEARCHED


def test_a_setting_that_is_left_out_differs_from_no_default():
    assert differing({}, {"bf16": False, "malloc": "default"}) == []
    assert differing({"optim": "sgd"}, {"bf16": True}) == ["bf16", "optim"]
    assert differing({"model revision": "a"}, {"model revision": "b"}) == ["model revision"]


@pytest.mark.parametrize("name", ["eval_on_start", "logging_first_step", "dataloader_num_workers"])
def test_what_a_trace_or_a_two_step_pass_does_otherwise_moves_memory(name):
    assert name in moving("memory")
