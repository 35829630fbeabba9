"""Quantized parameters in a trace: layers and models that bitsandbytes quantizes when they come to the card."""

import copy

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from ftbench.prediction.trace.tracer import Target, trace

TARGET = Target(padding=False)
MAP = 256 * 4  # of 8-bit numbers, one for all weights of a process
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
CONFIGS = {
    "4 bits": (NF4, 0),
    "4 bits, scales in 8": (NF4 | {"bnb_4bit_use_double_quant": True}, MAP),
    "8 bits": ({"load_in_8bit": True}, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("weights")
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=200,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(made)
    return made


def loaded(folder, config, device_map):
    return AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=BitsAndBytesConfig(**config),
        dtype=torch.bfloat16,
        device_map=device_map,
    )


def in_memory(model):
    """The bytes of all that a model keeps: parameters, buffers, and the scales of its weights."""
    kept = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        kept.append(getattr(parameter, "SCB", None))
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            kept += [state.absmax, state.code, state.offset]
            state = state.state2
    tensors = [tensor for tensor in kept if tensor is not None]
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("device_map", ["cuda", "auto", {"": 0}], ids=str)
def test_a_loaded_model_is_as_large_as_the_real_one_on_a_processor(name, device_map, folder):
    config, beside = CONFIGS[name]
    found = []

    def factory(device):
        model = loaded(folder, config, device_map)
        found.append(torch.cuda.memory_allocated())
        return lambda: model.lm_head.weight.sum()

    trace(factory, target=TARGET, steps=1)
    assert found == [in_memory(loaded(folder, config, "cpu")) + beside]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_that_is_quantized_is_as_large_as_it_is(name, folder, tmp_path):
    made = loaded(folder, CONFIGS[name][0], "cpu")
    made.save_pretrained(tmp_path)
    found = []

    def factory(device):
        model = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="cuda")
        found.append(torch.cuda.memory_allocated())
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4))
        ids = torch.zeros(2, 16, dtype=torch.long, device=device)
        return lambda: model(input_ids=ids, labels=ids).loss.backward()

    trace(factory, target=TARGET, steps=2)
    assert found == [in_memory(made)]


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_train_beside_a_loaded_model(name, folder):
    def factory(device):
        model = prepare_model_for_kbit_training(loaded(folder, CONFIGS[name][0], {"": 0}))
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4))
        trained = [p for p in model.parameters() if p.requires_grad]
        # Query and value of two layers: from 64 to 4 to 64, or to 32.
        assert sum(p.numel() for p in trained) == 2 * (4 * (64 + 64) + 4 * (64 + 32))
        optimizer = torch.optim.AdamW(trained)
        ids = torch.zeros(2, 16, dtype=torch.long, device=device)

        def step():
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    traced = trace(factory, target=TARGET)
    assert traced.peak_bytes > in_memory(loaded(folder, CONFIGS[name][0], "cpu"))


@pytest.mark.parametrize("move", [lambda layer: layer.cuda(), lambda layer: layer.to("cuda")])
def test_a_layer_is_quantized_when_it_is_moved(move):
    found = {}

    def factory(device):
        four = move(bitsandbytes.nn.Linear4bit(256, 512, quant_type="nf4"))
        found["4 bits"] = torch.cuda.memory_allocated()
        eight = move(bitsandbytes.nn.Linear8bitLt(256, 512, has_fp16_weights=False))
        found["8 bits"] = torch.cuda.memory_allocated() - found["4 bits"]
        assert four.weight.quant_state is four.quant_state
        inputs = torch.ones(4, 256, dtype=torch.float16, device=device)
        return lambda: (four(inputs) + eight(inputs)).sum()

    trace(factory, target=TARGET, steps=1)
    weights, bias, code, scales = 256 * 512, 512 * 4, 256 * 4, 256 * 512 // 64 // 256
    nested = 256 * 512 // 64 + code + 4 * scales + code + 4  # and the map that all weights share
    assert found["4 bits"] == weights // 2 + bias + 16 * 4 + nested
    assert found["8 bits"] == weights + bias + 512 * 4


def test_a_layer_that_is_copied_takes_as_much_again():
    found = []

    def factory(device):
        layers = [
            bitsandbytes.nn.Linear4bit(256, 512, bias=False, quant_type="nf4").cuda(),
            bitsandbytes.nn.Linear8bitLt(256, 512, bias=False, has_fp16_weights=False).cuda(),
        ]
        before = torch.cuda.memory_allocated()
        copies = copy.deepcopy(layers)
        found.append(torch.cuda.memory_allocated() - before)
        assert copies[0].weight.quant_state is not layers[0].weight.quant_state
        return lambda: copies[0](torch.ones(1, 256, dtype=torch.float16, device=device)).sum()

    trace(factory, target=TARGET, steps=1)
    weights, scales, outputs = 256 * 512, 256 * 512 // 64, 512
    nested = scales + 16 * 4 + 256 * 4 + 4 * scales // 256 + 4
    assert found[0] >= weights // 2 + nested + weights + 4 * outputs
