"""Which cells share traces, and which cards."""

import json

import pytest

from ftbench.plan.gpus import find_gpu
from ftbench.prediction.lengths import SequenceLengths
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.trace.tracer import Target
from ftbench.prediction.workload_groups import (
    _generation,
    targets_of,
    with_least_data,
    workload_groups,
)
from ftbench.records.prediction import PredictRequest
from tests.factories import cell, grid, model_source


def cells(training=None, **axes):
    block = {
        "max_length": [16, 32],
        "per_device_train_batch_size": [4, 8],
        "train_size": [64],
    } | axes
    return grid(grid=[block], training=training or {}).cells


def gpus(*names):
    return [find_gpu(name) for name in names]


# Groups: cells that share traces


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"train_size": [64, 128]},
        {"learning_rate": [1e-5, 2e-5]},
        {"report_to": ["none", "tensorboard"]},
        {"num_train_epochs": [1, 3]},
        {"seed": [1, 2]},
        {"weight_decay": [0.01, 0.1]},
        {"warmup_steps": [0, 10]},
    ],
)
def test_what_does_not_change_a_step_is_one_group(axes):
    of = cells(**axes)
    assert workload_groups(of, SequenceLengths()) == [list(of)]


def test_any_weight_decay_may_cost_a_list_of_gradients():
    of = cells(weight_decay=[0.0, 0.1])
    assert [len(group) for group in workload_groups(of, SequenceLengths())] == [4, 4]


@pytest.mark.parametrize(
    "axes",
    [
        {"padding": ["max_length", "longest"]},
        {"attn_implementation": ["eager", "sdpa"]},
        {"bf16": [True, False]},
        {"dtype": ["bfloat16", "float32"]},
        {"optim": ["adamw_torch", "sgd"]},
        {"gradient_checkpointing": [True, False]},
        {"gradient_accumulation_steps": [1, 2]},
        {"max_grad_norm": [0.0, 1.0]},
        {"per_device_eval_batch_size": [4, 8]},
    ],
)
def test_what_changes_a_step_is_a_group_of_its_own(axes):
    of = cells(**axes)
    groups = workload_groups(of, SequenceLengths())
    assert sorted(map(len, groups)) == [len(of) // 2] * 2
    for group in groups:
        assert len({json.dumps([c.value(name) for name in axes]) for c in group}) == 1


def test_each_method_and_each_lora_is_a_group_of_its_own():
    block = {"max_length": [16], "per_device_train_batch_size": [4, 8], "train_size": [64]}
    of = [
        one
        for rank in (4, 8)
        for one in grid(grid=[block | {"method": ["full", "lora"]}], lora={"r": rank}).cells
    ]
    groups = workload_groups(list(dict.fromkeys(of)), SequenceLengths())
    found = [({c.method for c in group}, {c.lora and c.lora.r for c in group}) for group in groups]
    assert found == [({"full"}, {None}), ({"lora"}, {4}), ({"lora"}, {8})]


def test_another_model_is_a_group_of_its_own():
    one = cell()
    other = one.model_copy(update={"model": model_source(config=(("num_hidden_layers", 2),))})
    assert workload_groups([one, other], SequenceLengths()) == [[one], [other]]


# Targets: cards that share traces


@pytest.mark.parametrize(
    ("capability", "first"),
    [
        ((6, 1), (0, 0)),
        ((7, 0), (7, 0)),
        ((7, 5), (7, 0)),
        ((8, 0), (8, 0)),
        ((8, 6), (8, 6)),
        ((8, 9), (8, 6)),
        ((9, 0), (9, 0)),
        ((10, 0), (9, 0)),
        ((10, 3), (9, 0)),
        ((12, 0), (12, 0)),
    ],
)
def test_generations(capability, first):
    assert _generation(capability) == first


CARDS = [card_of(gpu) for gpu in gpus("t4", "a100-40gb", "l4", "h100", "a100-80gb")]


def targets(of, cards=CARDS, **options):
    found = targets_of(of, cards, PredictRequest(cells=(of,), **options))
    return [(target, [card.name for card in its]) for target, its in found]


def test_in_float32_all_cards_share_a_trace():
    ((target, names),) = targets(cell())
    assert target.compute_capability == (8, 0)
    assert names == [card.name for card in CARDS]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_in_half_precision_generations_have_traces_of_their_own(dtype):
    (half, *_) = cells({dtype: True})
    assert [(t.compute_capability, names) for t, names in targets(half)] == [
        ((7, 0), ["t4"]),
        ((8, 0), ["a100-40gb", "a100-80gb"]),
        ((8, 6), ["l4"]),
        ((9, 0), ["h100"]),
    ]


def test_without_a_card_one_is_assumed_and_a_processor_has_none():
    ((target, names),) = targets(cell(), [])
    assert (target.device, target.compute_capability, names) == ("cuda", (8, 0), [])
    ((target, names),) = targets(cell(), on_cpu=True)
    assert (target.device, names) == ("cpu", [])


def test_a_kernel_that_is_forced_is_passed_on():
    ((target, _),) = targets(cell(), attention="math")
    assert target.attention == "math"


# Flash attention, which removes padding


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize(
    "attention", ["sdpa", "flash_attention_2", "kernels-community/flash-attn2"]
)
def test_only_padding_that_is_removed_has_a_least(attention, padding):
    of = cell(attn_implementation=attention, dtype="bfloat16")
    least = with_least_data(of, Target(padding=padding))
    removed = padding and attention != "sdpa"
    assert least == (Target(padding=True, tokens="fewest", outlier_columns=0) if removed else None)


def test_products_of_8_bits_may_have_no_outliers():
    of = cell(method="lora", quantization="int8")
    assert with_least_data(of, Target()) == Target(outlier_columns=0)
    assert with_least_data(cell(), Target()) is None
