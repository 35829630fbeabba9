"""Traces of the Trainer of a cell: its settings, its phases, and what it leaves behind."""

import importlib.util
import os
import random

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers import TrainingArguments

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.events import (
    AFTER_BACKWARD,
    BACKWARD,
    EVALUATION,
    FORWARD,
    INPUT,
    OPTIMIZER,
    SETUP,
    Kind,
)
from ftbench.prediction.trace.packages import LOMO_OPTIMIZERS, load_packages
from ftbench.prediction.trace.trace_trainer import (
    COVERED_OPTIMIZERS,
    Batches,
    refuse_uncovered,
    trace_trainer,
)
from ftbench.prediction.trace.tracer import Target
from tests.traced import traced_cell

TINY = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
}
BATCH, LENGTH = 4, 16
STEP = (INPUT, FORWARD, BACKWARD, AFTER_BACKWARD, OPTIMIZER)


def tiny(**settings):
    return traced_cell("bert", batch=BATCH, length=LENGTH, config=TINY, **settings)


def traced(*, steps=1, target=None, batches=None, evaluation=False, **settings):
    return trace_trainer(
        tiny(**settings), target, steps=steps, batches=batches, evaluation=evaluation
    )


@pytest.fixture(scope="module")
def plain():
    """Two steps and an evaluation."""
    return traced(steps=2, evaluation=True)


@pytest.fixture(scope="module")
def one_step():
    return traced()


def sites(found):
    return [found.sites[place] for place in found.site]


def operators(found, phase=None):
    return {site.operator for site in found.sites if phase in (None, site.phase)}


def allocated(found, phase, step, operator):
    """The bytes that an operator allocated in a step's phase, each."""
    return [
        int(nbytes)
        for kind, nbytes, site in zip(found.kind, found.nbytes, sites(found), strict=True)
        if kind == Kind.ALLOCATE
        and (site.phase, site.step, site.operator) == (phase, step, operator)
    ]


# What is refused


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("torch_compile", True, "plan their memory"),
        ("torch_compile_backend", "inductor", "sets torch_compile"),
        ("torch_compile_mode", "reduce-overhead", "sets torch_compile"),
        ("torch_empty_cache_steps", 1, "cache is emptied"),
        ("optim_target_modules", "all-linear", "projected"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(setting, value, why):
    with pytest.raises(PredictionError, match=why) as refused:
        refuse_uncovered(tiny(**{setting: value}))
    assert refused.value.where == f"training.{setting}"
    assert refused.value.got == repr(value)


def test_what_is_said_to_be_off_is_not_refused():
    refuse_uncovered(tiny(torch_compile=False, use_liger_kernel=False))


@pytest.mark.parametrize("optimizer", ["galore_adamw", "adamw_torch_8bit"])
def test_another_optimizer_is_refused(optimizer):
    with pytest.raises(PredictionError, match="this optimizer") as refused:
        refuse_uncovered(tiny(optim=optimizer))
    assert refused.value.where == "training.optim"
    assert "adafactor" in refused.value.expected


@pytest.mark.parametrize("attention", ["flash_attention_3", "flex_attention"])
def test_another_attention_is_refused(attention):
    cell = tiny().model_copy(update={"attn_implementation": attention})
    with pytest.raises(PredictionError, match="this attention") as refused:
        refuse_uncovered(cell)
    assert (refused.value.where, refused.value.got) == ("attn_implementation", attention)


def test_a_trace_refuses_before_anything_is_made():
    with pytest.raises(PredictionError, match="plan their memory"):
        traced(torch_compile=True)


# What is in a trace


def test_phases_and_steps(plain):
    passed = list(dict.fromkeys((site.phase, site.step) for site in sites(plain)))
    assert passed == [
        (SETUP, 0),
        *((phase, step) for step in (1, 2) for phase in STEP),
        (EVALUATION, 2),
    ]


def test_without_an_evaluation(one_step):
    assert EVALUATION not in {site.phase for site in one_step.sites}


def test_modules_are_those_of_the_model(plain):
    modules = {site.module for site in plain.sites if site.phase == BACKWARD}
    assert {"bert.encoder.layer.0.attention.self.query", "classifier"} <= modules


def test_weights_and_gradients_and_both_moments(plain):
    roles = plain.roles()
    sizes = {"parameters": 0, "gradients": 0, "optimizer state": 0}
    for kind, block, nbytes in zip(plain.kind, plain.block, plain.nbytes, strict=True):
        if kind == Kind.ALLOCATE and roles[block] in sizes:
            sizes[roles[block]] += int(nbytes)
    buffers = 2 * 512 * 8  # BERT's position ids and token types, int64
    weights = sizes["parameters"] - buffers
    counters = 4 * roles_count(plain, "parameters", but=2)  # the fused optimizer's, on the card
    assert sizes["gradients"] == 2 * weights  # of two steps
    assert sizes["optimizer state"] == 2 * weights + counters


@pytest.mark.parametrize("method", ["head", "lora"])
def test_what_is_frozen_has_no_gradient_and_no_moments(method):
    found = traced(method=method, target=Target(device="cpu"), evaluation=True)
    head, matrices = 32 * 2 + 2, 8 * 2 * 32  # LoRA's of rank 8, for each linear module but the head
    trained = head if method == "head" else head + (6 + 1) * matrices
    counters = (2 if method == "head" else 2 + 2 * 7) * 4  # a step's number, float32
    assert role_bytes(found, "gradients") == trained * 4
    assert role_bytes(found, "optimizer state") == 2 * trained * 4 + counters
    assert role_bytes(found, "parameters") > 10 * role_bytes(found, "gradients")


def role_bytes(found, role):
    roles = found.roles()
    sizes = zip(found.kind, found.block, found.nbytes, strict=True)
    return sum(
        int(size) for kind, block, size in sizes if kind == Kind.ALLOCATE and roles[block] == role
    )


def roles_count(found, role, *, but):
    return sum(held == role for held in found.roles().values()) - but


def test_every_step_has_its_own_batch(plain):
    inputs = allocated(plain, INPUT, 1, "aten::_to_copy")
    tokens = BATCH * LENGTH * 8
    assert sorted(inputs) == [BATCH * 8, tokens, tokens, tokens]
    assert allocated(plain, INPUT, 2, "aten::_to_copy") == inputs


def test_steps_of_several_lengths():
    found = traced(steps=2, batches=Batches((8, 16)))
    for step, length in ((1, 8), (2, 16)):
        hidden = allocated(found, FORWARD, step, "aten::native_layer_norm")
        assert max(hidden) == BATCH * length * 32 * 4


def test_half_precision_on_a_card_scales_the_loss():
    halves = {name: traced(**{name: True}) for name in ("fp16", "bf16")}
    unscale = "aten::_amp_foreach_non_finite_check_and_unscale_"
    for name, found in halves.items():
        products = allocated(found, FORWARD, 1, "aten::addmm")
        assert BATCH * LENGTH * 32 * 2 in products, name
        assert all(nbytes <= BATCH * LENGTH * 32 * 2 for nbytes in products)
    # The scale itself is a float on the card, and so is what it finds infinite.
    assert unscale not in operators(halves["bf16"])
    on_card = [len(allocated(halves[name], FORWARD, 1, "aten::mul")) for name in ("fp16", "bf16")]
    assert on_card[0] == on_card[1] + 1


def test_accumulation_runs_the_model_twice_a_step(one_step):
    found = traced(gradient_accumulation_steps=2)
    once = allocated(one_step, FORWARD, 1, "aten::addmm")
    assert allocated(found, FORWARD, 1, "aten::addmm") == 2 * once
    assert found.peak_bytes > one_step.peak_bytes


def test_checkpointing_runs_the_model_in_the_backward_pass(one_step):
    found = traced(gradient_checkpointing=True)
    assert "aten::addmm" in operators(found, BACKWARD)
    assert "aten::addmm" not in operators(one_step, BACKWARD)


@pytest.mark.parametrize("optimizer", COVERED_OPTIMIZERS)
def test_every_optimizer_that_is_covered_is_traced(optimizer):
    found = traced(optim=optimizer)
    # Those of lomo-optim change the parameters before, and have nothing left to do.
    assert (OPTIMIZER in {site.phase for site in found.sites}) is (optimizer not in LOMO_OPTIMIZERS)


@pytest.mark.parametrize(
    "settings",
    [
        # A loader's processes cannot send tensors without data: the Trainer waited for ever.
        {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 2},
        {"tf32": True},  # transformers refuses it where there is no card
    ],
)
def test_settings_without_effect_on_memory_have_none(one_step, settings):
    assert_the_same(traced(**settings), one_step)


def test_padding_makes_a_mask(one_step):
    # Without padding transformers leaves the mask out, and no row of a mask is there.
    full = traced(target=Target(padding=False))
    assert len(full) < len(one_step)
    assert full.peak_bytes <= one_step.peak_bytes


def test_on_a_cpu_there_are_no_kernels(plain):
    found = traced(target=Target(device="cpu"))
    assert found.kernels == ()
    assert plain.kernels


# What is left behind


def assert_the_same(one, other):
    assert one.same_events(other)
    assert one.nbytes.tolist() == other.nbytes.tolist()


def test_one_after_another_are_the_same_whatever_came_between(one_step):
    traced(bf16=True)
    assert_the_same(traced(), one_step)


def surroundings():
    return (
        [dict(state._shared_state) for state in (PartialState, AcceleratorState, GradientState)],
        TrainingArguments.__dict__["_setup_devices"],
        torch.amp.GradScaler.__dict__["_maybe_opt_step"],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_default_dtype(),
        dict(os.environ),
    )


def test_the_states_of_a_trainer_of_the_callers_stay(tmp_path):
    TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none").device  # noqa: B018
    before = surroundings()
    assert before[0][0]["device"] == torch.device("cpu")
    traced(bf16=True, evaluation=True)
    assert surroundings() == before


def test_a_failure_leaves_everything_as_it_was():
    before = surroundings()
    with pytest.raises(PredictionError, match="eval strategy"):
        traced(lr_scheduler_type="reduce_lr_on_plateau")
    assert surroundings() == before


def test_nothing_is_printed_and_no_file_is_left(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    traced(steps=1)
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


# Optimizers that step in the backward pass


def test_a_step_in_the_backward_pass_has_one_gradient_at_a_time():
    """At its end that of the embedding, the last one, is left; without it all are there."""
    rows = 8000
    large = {"config": TINY | {"vocab_size": rows}, "batch": 2, "length": 8}
    plain, stepping = (
        trace_trainer(
            traced_cell("bert", optim=name, **large),
            Target(padding=False),
            steps=2,
            evaluation=False,
        )
        for name in ("sgd", "lomo")
    )
    parameters = sum(
        int(nbytes)
        for (kind, block, _), nbytes in zip(plain.rows(), plain.nbytes, strict=True)
        if kind == Kind.ALLOCATE and plain.traced_roles.get(block) == "parameters"
    )

    def at_the_end_of_backward(found):
        last = max(row for row, s in enumerate(found.site) if found.sites[s].phase == BACKWARD)
        return int(found.live_bytes[last])

    saved = at_the_end_of_backward(plain) - at_the_end_of_backward(stepping)
    buffers = 2 * 8 * 512  # numbers of positions and of types, which the model has as well
    number = 4  # one more, of the loss or its norm
    assert saved - number == parameters - buffers - 4 * rows * TINY["hidden_size"]


def test_adalomo_steps_in_the_backward_pass_too():
    found = traced(optim="adalomo", steps=2)
    assert "aten::rsqrt" in operators(found, BACKWARD)
    assert "aten::rsqrt" not in operators(found, OPTIMIZER)


def test_without_its_package_the_optimizer_is_refused(monkeypatch):
    cell = tiny(optim="lomo")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PredictionError, match="lomo-optim") as refused:
        load_packages(cell, Target())
    assert (refused.value.where, refused.value.got) == ("training.optim", "lomo")


# Activation checkpointing


@pytest.mark.parametrize("offload", [False, True])
def test_offloaded_activations_are_not_on_the_card(offload):
    """A layer more has its parameters, Adam's moments and, at the end of backward, its gradients.

    Without offload its inputs are kept instead, in float32 under autocast, of which there are more here.
    """
    batch, length, width, inner = 32, 64, 32, 32
    parameters = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    peaks = [
        trace_trainer(
            traced_cell(
                "bert",
                batch=batch,
                length=length,
                config=TINY | {"num_hidden_layers": layers},
                bf16=True,
                activation_checkpointing=True,
                activation_checkpointing_kwargs={"offload": offload},
            ),
            Target(padding=False),
            steps=2,
            evaluation=False,
        ).peak_bytes
        for layers in (8, 16)
    ]
    per_layer = (peaks[1] - peaks[0]) / 8
    states = 3 * 4 * parameters
    inputs = 4 * batch * length * width
    expected = states + (4 * parameters if offload else inputs)
    assert per_layer == pytest.approx(expected, abs=256)


def failing(monkeypatch, function):
    """Make the body of BERT end in a function of its hidden states."""
    from transformers.models.bert import modeling_bert

    original = modeling_bert.BertLayer.forward

    def forward(layer, states, *args, **kwargs):
        return original(layer, function(states), *args, **kwargs)

    monkeypatch.setattr(modeling_bert.BertLayer, "forward", forward)
    return traced_cell("bert", config=TINY, batch=BATCH, length=LENGTH)


def test_an_operator_that_fails_in_a_model_is_named_with_the_line(monkeypatch):
    cell = failing(monkeypatch, lambda states: states.view(7, -1))
    with pytest.raises(PredictionError) as failed:
        trace_trainer(cell, steps=1)
    assert "aten.view.default" in str(failed.value)
    assert failed.value.where.startswith("tests/unit/prediction/trace/test_trace_trainer.py:")
    assert failed.value.got.startswith("RuntimeError: shape '[7, -1]' is invalid")


def test_an_error_of_the_model_without_an_operator_is_named_too(monkeypatch):
    def pictures(states):
        raise ValueError("You have to specify pixel_values")

    with pytest.raises(PredictionError) as failed:
        trace_trainer(failing(monkeypatch, pictures), steps=1)
    assert failed.value.got == "ValueError: You have to specify pixel_values"


def test_an_error_of_our_own_code_is_not_taken_for_the_model_s(monkeypatch):
    def broken(self, func, args):
        raise KeyError("a defect")

    monkeypatch.setattr("ftbench.prediction.trace.tracer.Tracer._kernel", broken)
    # Raised by a function of this test, so place it in the package.
    code = broken.__code__.replace(co_filename=trace_trainer.__code__.co_filename)
    broken.__code__ = code
    with pytest.raises(KeyError, match="a defect"):
        trace_trainer(traced_cell("bert", config=TINY, batch=BATCH, length=LENGTH), steps=1)
