"""Tests of a GPTQ base, for memory: planted sizes, and the reader of such rows."""

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM

from ftbench.prediction.trace.tracer import trace
from tests.unit.validation.test_fms import ROW
from tests.validation.fms.gptq import GptqLinear, gptq_base
from tests.validation.fms.rows import cell_of, reason_against, run_of

GPTQ_ROW = ROW | {
    "model": "TheBloke/Mistral-7B-v0.1-GPTQ",
    "framework_config": "accelerated-peft-autogptq-foak",
    "torch_dtype": "float16",
    "fp16_flag": "True",
}


@pytest.mark.parametrize(("group", "groups"), [(128, 2), (-1, 1)])
def test_a_quantised_layer_keeps_half_a_byte_for_each_weight_and_its_scales(group, groups):
    layer = GptqLinear(256, 64, group)
    kept = {name: buffer.nbytes for name, buffer in layer.named_buffers()}
    assert kept == {
        "qweight": 256 * 64 // 2,
        "qzeros": groups * 64 // 2,
        "scales": groups * 64 * 2,
        "g_idx": 256 * 4,
    }


def test_on_several_cards_packed_weights_and_zeros_are_parameters_that_fsdp_can_flatten():
    whole, sharded = (GptqLinear(256, 64, 128, kind) for kind in (None, torch.bfloat16))
    assert not list(whole.parameters())
    kept = {name: parameter.nbytes for name, parameter in sharded.named_parameters()}
    assert kept == {"qweight": 256 * 64 // 2, "qzeros": 2 * 64 // 2}
    assert {parameter.dtype for parameter in sharded.parameters()} == {torch.bfloat16}
    assert {name for name, _ in sharded.named_buffers()} == {"scales", "g_idx"}


def test_a_product_makes_its_weight_and_keeps_nothing_of_it():
    def factory(device):
        layers = [GptqLinear(1024, 1024, 128).to(device) for _ in range(4)]
        x = torch.zeros(1, 2, 1024, dtype=torch.float16, device=device, requires_grad=True)

        def step():
            made = x
            for layer in layers:
                made = layer(made)
            made.sum().backward()

        return step

    layer = sum(buffer.nbytes for buffer in GptqLinear(1024, 1024, 128).buffers())
    peak = trace(factory, steps=1).peak_bytes - 4 * layer
    assert 1024 * 1024 * 2 <= peak < 1024 * 1024 * 2 + 16 * 2 * 1024 * 2


def test_all_layers_of_an_architecture_are_quantised_but_the_head():
    config = AutoConfig.for_model(
        "llama",
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    with gptq_base("llama", 128, 96):
        model = LlamaForCausalLM(config)
    quantised = [name for name, one in model.named_modules() if isinstance(one, GptqLinear)]
    assert len(quantised) == 7
    assert type(model.lm_head) is torch.nn.Linear
    assert not any(isinstance(one, GptqLinear) for one in LlamaForCausalLM(config).modules())


def test_a_row_of_a_quantised_checkpoint_is_its_shape_in_half_precision():
    assert reason_against(GPTQ_ROW) is None
    run = run_of(GPTQ_ROW)
    assert (run.model, run.group, run.quantized, run.fused) == ("Mistral-7B-v0.1", 128, False, True)
    # bfloat16 has float16's sizes; our recipe refuses the scaler beside weights in float16
    assert (cell_of(run).dtype, run.autocast) == ("bfloat16", "bf16")
    assert run_of(GPTQ_ROW | {"model": "TheBloke/Llama-2-70B-GPTQ"}).group == -1


def test_a_quantised_mixture_of_experts_is_refused():
    for framework in ("accelerated-peft-autogptq", "accelerated-peft-bnb"):
        row = GPTQ_ROW | {"model": "x/Mixtral-8x7B-v0.1", "framework_config": framework}
        assert "mixture of experts" in (reason_against(row) or "")
