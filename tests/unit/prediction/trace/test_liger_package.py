"""Liger-Kernel in a trace: the buffers of its operators, counted by hand, and that nothing of it stays."""

import dataclasses
import importlib.util
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from ftbench.base.errors import PredictionError
from ftbench.plan.gpus import find_gpu
from ftbench.prediction.simulate.cards import card_of
from ftbench.prediction.trace.events import BACKWARD, FORWARD, Kind
from ftbench.prediction.trace.liger_package import _Nothing, liger_on_card, require_liger
from ftbench.prediction.trace.trace_trainer import refuse_uncovered, trace_trainer
from ftbench.prediction.trace.tracer import Target, tracing
from ftbench.prediction.workload_groups import targets_of
from ftbench.records.prediction import PredictRequest
from tests.factories import cell
from tests.traced import LAYERS, traced_cell

ROWS, WIDTH, VOCABULARY = 64, 32, 1000
HALF, FLOAT = 2, 4
TARGET = Target(padding=False, multiprocessors=7)
WITHOUT_LOSS = {"liger_kernel_config": {"fused_linear_cross_entropy": False}}


def stepped(build, target=TARGET):
    """The trace of two calls of what `build(device)` returns, with Liger."""
    with tracing(target, asks_for_card=True) as tracer, liger_on_card(tracer, target):
        step = build(target.shown_device)
        tracer.begin()
        for _ in range(2):
            tracer.next_step()
            step()
        found = tracer.finish()
        del step
    return found


def made(found, phase, step=2):
    """The bytes that are allocated in a phase of a step, in order; of empty tensors none."""
    return [
        int(nbytes)
        for (kind, _, site), nbytes in zip(found.rows(), found.nbytes, strict=True)
        if kind == Kind.ALLOCATE
        and nbytes
        and (found.sites[site].phase, found.sites[site].step) == (phase, step)
    ]


def norm(device):
    from liger_kernel.transformers import LigerRMSNorm

    layer = LigerRMSNorm(WIDTH).to(device, torch.bfloat16)
    inputs = torch.ones(4, ROWS // 4, WIDTH, device=device, dtype=torch.bfloat16)
    inputs.requires_grad_()

    def step():
        layer(inputs).backward(torch.ones_like(inputs))
        inputs.grad = layer.weight.grad = None

    return step


def test_an_rms_norm():
    found = stepped(norm)
    assert made(found, FORWARD)[:2] == [ROWS * WIDTH * HALF, ROWS * FLOAT]
    by_multiprocessor, summed, *_ = made(found, BACKWARD)
    assert by_multiprocessor == 7 * WIDTH * FLOAT
    assert summed in (WIDTH * FLOAT, WIDTH * HALF)
    assert ROWS * WIDTH * HALF not in made(found, BACKWARD)  # in place


def loss(device, rows=ROWS):
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    half = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
    weight = torch.ones(VOCABULARY, WIDTH, **half)
    hidden = torch.ones(rows, WIDTH, **half)
    labels = torch.ones(rows, device=device, dtype=torch.int64)
    function = LigerFusedLinearCrossEntropyLoss()

    def step():
        function(weight, hidden, labels).backward()
        weight.grad = hidden.grad = None

    return step


@pytest.mark.parametrize(
    ("rows", "chunk"),
    [
        (64, 2),  # 1000 / 32 are 32 parts, of two rows each
        (100, 4),  # four rows each, the power of two after 100 / 32
        (1, 1),
    ],
)
def test_the_fused_loss_has_the_logits_of_one_chunk(rows, chunk):
    found = stepped(lambda device: loss(device, rows))
    sizes = made(found, FORWARD) or made(found, "input")
    assert chunk * VOCABULARY * HALF in sizes
    assert rows * WIDTH * HALF in sizes  # the gradient of the input
    assert VOCABULARY * WIDTH * HALF in sizes  # and of the weight
    assert rows * FLOAT in sizes
    assert rows == chunk or rows * VOCABULARY * HALF not in sizes


def language_model(device, *, liger):
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=8000,
        use_cache=False,
    )
    model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).to(device)
    if liger:
        from transformers.integrations.liger import apply_liger_kernel

        apply_liger_kernel(model, None)
    ids = torch.ones(4, 64, dtype=torch.int64, device=device)

    def step():
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()

    return step


def test_a_language_model_never_has_all_logits():
    with_liger = stepped(lambda device: language_model(device, liger=True))
    without = stepped(lambda device: language_model(device, liger=False))
    logits = 4 * 64 * 8000 * HALF
    assert max(made(without, FORWARD)) >= logits
    weight = 8000 * 64 * HALF
    assert max(made(with_liger, FORWARD)) == weight
    assert without.peak_bytes - with_liger.peak_bytes > logits


def traced(model="llama", **settings):
    of = traced_cell(model, dtype="bfloat16", **settings)
    return trace_trainer(of, TARGET, steps=2, evaluation=False)


def test_a_cell_of_a_classifier():
    """Of each layer, two norms, the rotary embedding and the gated unit keep less."""
    plain, liger = traced(), traced(use_liger_kernel=True, **WITHOUT_LOSS)
    rows = 8 * 64
    # Of a gated unit: the activation and the product, and the product's operands are kept otherwise.
    assert plain.peak_bytes - liger.peak_bytes > LAYERS * rows * 128 * HALF
    operators = {site.operator for site in liger.sites}
    assert "aten::silu" not in operators
    assert "aten::silu" in {site.operator for site in plain.sites}
    buffers = [n for n in made(liger, BACKWARD) if n == 7 * 64 * FLOAT]
    assert len(buffers) == 2 * LAYERS + 1


def test_a_model_that_liger_does_not_know_is_as_without_it():
    assert traced("bert", use_liger_kernel=True).same_events(traced("bert"))


def test_a_classifier_with_the_loss_of_a_language_model_is_refused():
    with pytest.raises(PredictionError, match="replaces the forward pass") as refused:
        traced(use_liger_kernel=True)
    assert refused.value.where == "training.liger_kernel_config"
    assert "fused_linear_cross_entropy = false" in refused.value.expected


def test_nothing_of_it_stays():
    before = dict(vars(modeling_llama)), torch.nn.functional.cross_entropy, list(sys.meta_path)
    forward = modeling_llama.LlamaForCausalLM.forward
    traced(use_liger_kernel=True, **WITHOUT_LOSS)
    stepped(lambda device: language_model(device, liger=True))
    after = dict(vars(modeling_llama)), torch.nn.functional.cross_entropy, list(sys.meta_path)
    assert after == before
    assert modeling_llama.LlamaForCausalLM.forward is forward
    assert not {"triton", "liger_kernel"} & set(sys.modules)


@pytest.mark.parametrize("ask", [bool, lambda value: value == 3, lambda value: value in (1, 2)])
def test_the_stand_in_for_triton_gives_no_values(ask):
    """Else a size might depend on one: so the type of an RMS norm's deviations did."""
    with pytest.raises(PredictionError, match="asks Triton"):
        ask(_Nothing())


def test_what_was_imported_before_is_put_back(monkeypatch):
    planted = type(sys)("triton")
    monkeypatch.setitem(sys.modules, "triton", planted)
    stepped(norm)
    assert sys.modules["triton"] is planted


def test_a_trace_is_for_the_most_multiprocessors_of_its_cards():
    cards = [card_of(find_gpu(name)) for name in ("a100-40gb", "h100", "l4")]
    most = max(card.runtime.multiprocessors for card in cards)
    for settings, expected in (({"use_liger_kernel": True}, most), ({}, Target().multiprocessors)):
        of = cell(**settings)
        ((target, _),) = targets_of(of, cards, PredictRequest(cells=(of,)))
        assert target.multiprocessors == expected
    assert most != Target().multiprocessors


def test_more_multiprocessors_take_more():
    of = traced_cell("llama", use_liger_kernel=True, **WITHOUT_LOSS)
    few, many = (
        trace_trainer(
            of, dataclasses.replace(TARGET, multiprocessors=number), steps=1, evaluation=False
        )
        for number in (7, 4000)
    )
    assert few.same_events(many)
    assert many.peak_bytes > few.peak_bytes


def test_without_the_package_it_is_named(monkeypatch):
    refuse_uncovered(traced_cell("llama", use_liger_kernel=True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PredictionError, match="liger-kernel") as refused:
        require_liger("training.use_liger_kernel", "True")
    assert "--no-deps" in refused.value.hint


def test_a_trace_of_a_processor_is_refused():
    of = traced_cell("llama", use_liger_kernel=True)
    with pytest.raises(PredictionError, match="as on a card only"):
        trace_trainer(of, Target(device="cpu"), steps=1)
