"""Reported runs become commands: planted rows, each with what its command must and must not have."""

import pytest

from tests.reported_runs.acceptance import Answer, answer_of
from tests.reported_runs.commands import NOT_EXPRESSED, PROGRAM, Report, express


def expressed(task, *features, gpus="1"):
    return express(Report("1", gpus, task, features))


def options(*words):
    """Return the options of a command with their values."""
    (command,) = words
    return [command[place : place + 2] for place in range(len(command) - 1)]


@pytest.mark.parametrize(
    ("features", "option"),
    [
        (("amp16",), ("--set", "training.fp16=true")),
        (("ckpt",), ("--set", "training.gradient_checkpointing=true")),
        (("opt8",), ("--optim", "adamw_8bit")),
        (("truehalf",), ("--dtype", "bfloat16")),
        (("quant4",), ("--method", "lora")),
        (("flash",), ("--set", "training.bf16=true")),
        (("packing",), ("--set", "packing=concatenate")),
    ],
)
def test_a_trainer_s_run_is_a_profile_with_settings(features, option):
    found = expressed("causal", *features)
    assert found.command[:3] == ("ftbench", "estimate-memory", "architecture:llama")
    assert option in options(found.command)
    assert option not in options(expressed("causal").command)


def test_an_option_that_two_features_have_is_there_once():
    words = expressed("causal", "lora", "quant4").command
    assert words.count("--method") == 1
    assert "quantization=nf4" in words


def test_the_feature_that_names_an_architecture_names_the_model():
    assert expressed("seq-cls", "deberta").command[2] == "architecture:deberta-v2"
    assert expressed("seq-cls").command[2] == "architecture:bert"


@pytest.mark.parametrize(
    ("task", "feature", "argument"),
    [
        ("causal", "customloop", "task=causal"),
        ("vision", "amp16", "amp16=true"),
        ("seq2seq", "evalaccum", "evaluated_batches=20"),
    ],
)
def test_any_other_run_is_a_program_with_arguments(task, feature, argument):
    words = expressed(task, feature).command
    assert words[:3] == ("ftbench", "predict", PROGRAM)
    assert ("--arg", argument) in options(words)


@pytest.mark.parametrize("feature", ["apex", "compile", "dist"])
def test_what_no_command_expresses_has_a_reason(feature):
    found = expressed("causal", "ckpt", feature)
    assert found.command is None
    assert found.text == f"not expressed: {NOT_EXPRESSED[feature]}"


def test_a_word_that_no_table_has_is_no_command():
    assert "offload" in expressed("causal", "offload").reason  # no setting moves activations
    assert "new-word" in expressed("causal", "customloop", "new-word").reason
    assert "diffusion" in expressed("diffusion").reason


def test_what_the_list_does_not_say_is_an_assumption():
    assert "Liger" in expressed("causal", "triton").assumed
    assert not expressed("causal", "amp16").assumed


def test_only_one_cell_with_a_peak_is_an_answer():
    cell = '{"tensors": {"value_bytes": 5}}'
    assert answer_of(f'{{"cells": [{cell}]}}') == Answer(5)
    assert answer_of('{"cells": []}').peak_bytes is None
    assert answer_of('{"cells": [{"tensors": {"value_bytes": 0}}]}').problem
