"""Tests of fms-acceleration's plugin, for memory: planted sizes of what it keeps and allocates."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, LlamaForCausalLM, MistralForCausalLM

from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.fms import kernels
from tests.validation.fms.attention import attention_as_published
from tests.validation.fms.fused_lora import fuse
from tests.validation.fms.heads import head_as_published
from tests.validation.fms.plugin import fast_kernels

ROWS, WIDTH, WORDS = 64, 32, 1000


def peak(make):
    """The most that a step asks for, beyond what is there before it."""

    def factory(device):
        inputs = make(device)
        before.append(sum(tensor.nbytes for tensor in inputs[1:]))
        return lambda: inputs[0](*inputs[1:])

    before = []
    return trace(factory, steps=1).peak_bytes - before[0]


def on(device, *shape, trained=True):
    return torch.zeros(shape, dtype=torch.bfloat16, device=device, requires_grad=trained)


def test_a_norm_keeps_its_input_and_a_number_for_each_row():
    def make(device):
        return (
            lambda x, weight: kernels.rms_norm(SimpleNamespace(weight=weight), x),
            on(device, 1, ROWS, WIDTH),
            on(device, WIDTH),
        )

    assert peak(make) == ROWS * WIDTH * 2 + ROWS * 4


def test_a_norm_has_no_gradient_of_its_weight():
    x, norm = torch.ones(1, 2, 4, requires_grad=True), nn.RMSNorm(4)
    kernels.rms_norm(norm, x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None


def test_a_rotary_embedding_takes_nothing():
    def make(device):
        return (kernels.rotary, *(on(device, 1, 2, ROWS, WIDTH) for _ in range(2)))

    assert peak(make) == 0


@pytest.mark.parametrize(("words", "columns"), [(WORDS, 0), (65536, 0), (65537, 2)])
def test_a_cross_entropy_has_two_numbers_for_each_row_and_one_per_chunk(words, columns):
    def make(device):
        logits = torch.zeros(ROWS, words, device=device, requires_grad=True)
        return (
            kernels._CrossEntropy.apply,
            logits,
            torch.zeros(ROWS, dtype=torch.long, device=device),
        )

    assert peak(make) == 2 * ROWS * 4 + columns * ROWS * 4


def test_the_gradient_of_a_cross_entropy_takes_the_place_of_the_logits():
    logits = torch.zeros(2, 5, requires_grad=True)
    losses = kernels._CrossEntropy.apply(logits, torch.zeros(2, dtype=torch.long))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("trained", [False, True])
def test_a_fused_head_has_the_logits_of_one_chunk(trained):
    """1000 words are 32 times the width: chunks of 2 rows, in half and in full precision, and the one before."""

    def make(device):
        def loss(x, weight, labels):
            return kernels.linear_cross_entropy(x, weight, labels, scaled=False)

        return (
            loss,
            on(device, ROWS, WIDTH),
            on(device, WORDS, WIDTH, trained=trained),
            torch.zeros(ROWS, dtype=torch.long, device=device),
        )

    kept = ROWS * WIDTH * 2 + ROWS * 4 + trained * WORDS * WIDTH * 2
    assert peak(make) == kept + 2 * WORDS * (2 + 2 + 4)


class Adapted(nn.Module):
    """A LoRA layer as peft makes it, whose base of 4 bits is only known by its state."""

    def __init__(self, width, device, dropout):
        super().__init__()
        state = SimpleNamespace(
            shape=(width, width),
            dtype=torch.bfloat16,
            absmax=torch.empty(width * width // 64),
            offset=0.0,
        )
        self.base_layer = SimpleNamespace(weight=None, quant_state=state)
        self.active_adapters = ["default"]
        pair = (nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False))
        self.lora_A, self.lora_B = (nn.ModuleDict({"default": one.to(device)}) for one in pair)
        self.scaling = {"default": 1.0}
        self.lora_dropout = nn.ModuleDict(
            {"default": nn.Dropout(dropout) if dropout else nn.Identity()}
        )


def attention_of(device, dropout=0.0):
    attention = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        setattr(attention, name, Adapted(WIDTH, device, dropout))
    fuse(attention)
    return attention


def test_three_projections_are_one_operator_and_each_result_is_given_away():
    attention = attention_of("cpu")
    x = torch.ones(2, 3, WIDTH, dtype=torch.bfloat16, requires_grad=True) * 1
    results = [getattr(attention, name)(x) for name in ("q_proj", "k_proj", "v_proj")]
    assert {result.grad_fn for result in results} == {results[0].grad_fn}
    sum(result.sum() for result in results).backward()
    for name in ("q_proj", "k_proj", "v_proj"):
        assert getattr(attention, name).lora_A["default"].weight.grad.shape == (4, WIDTH)
    assert attention.o_proj.lora_A["default"].weight.grad is None
    assert attention.o_proj(x).shape == x.shape


def test_what_dropout_leaves_is_kept_for_each_projection():
    def kept(dropout):
        def factory(device):
            attention = attention_of(device, dropout)
            x = on(device, 1, 1024, WIDTH)

            def step():
                return [getattr(attention, name)(x) for name in ("q_proj", "k_proj", "v_proj")]

            return step

        return trace(factory, steps=1).peak_bytes

    assert kept(0.1) - kept(0.0) == 3 * 1024 * WIDTH * 2


SMALL = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
}


def test_the_plugin_is_there_while_the_context_lasts():
    from transformers.models.llama import modeling_llama

    before = (modeling_llama.LlamaRMSNorm.forward, modeling_llama.apply_rotary_pos_emb)
    with fast_kernels("llama", quantized=False):
        assert modeling_llama.LlamaRMSNorm.forward is kernels.rms_norm
        assert modeling_llama.apply_rotary_pos_emb is kernels.rotary
    assert (modeling_llama.LlamaRMSNorm.forward, modeling_llama.apply_rotary_pos_emb) == before
    with fast_kernels("gpt_bigcode", quantized=False):
        pass


def test_the_fast_loss_needs_no_logarithms_and_the_fused_one_no_logits():
    def factory(device):
        model = (
            LlamaForCausalLM(AutoConfig.for_model("llama", **SMALL)).to(torch.bfloat16).to(device)
        )
        tokens = torch.zeros(1, ROWS, dtype=torch.long, device=device)
        return lambda: model(input_ids=tokens, labels=tokens, use_cache=False).loss

    peaks = []
    for loss in ("torch", "fast", "liger"):
        with head_as_published("llama", (4, 48), loss):
            peaks.append(trace(factory, steps=1, target=Target(padding=False)).peak_bytes)
    drops = [before - after for before, after in itertools.pairwise(peaks)]
    logarithms = (ROWS - 1) * WORDS * 4
    assert drops[0] == pytest.approx(logarithms, rel=0.02)
    assert drops[1] > logarithms


@pytest.mark.parametrize(("version", "repeated"), [((4, 45), True), ((4, 48), False)])
def test_keys_and_values_were_repeated_before_4_48(version, repeated):
    seen = []

    def attention(module, query, key, value, *_, **__):
        seen.append((key.shape[1], value.shape[1]))
        return query.transpose(1, 2), None

    from transformers.models.mistral import modeling_mistral

    interfaces = SimpleNamespace(get_interface=lambda *_: attention)
    original, modeling_mistral.ALL_ATTENTION_FUNCTIONS = (
        modeling_mistral.ALL_ATTENTION_FUNCTIONS,
        interfaces,
    )
    try:
        with attention_as_published("mistral", version):
            model = MistralForCausalLM(AutoConfig.for_model("mistral", **SMALL))
            model(torch.zeros(1, 4, dtype=torch.long))
    finally:
        modeling_mistral.ALL_ATTENTION_FUNCTIONS = original
    assert seen == [(4, 4) if repeated else (1, 1)]
