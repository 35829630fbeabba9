"""Tests of the published runs of fms-acceleration: reader, refusals, heads, columns and table, on planted rows."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import peft
import pytest
import torch
from transformers import AutoConfig, GPTBigCodeForCausalLM, LlamaForCausalLM

from ftbench.prediction.trace.tracer import Target, trace
from tests.validation.columns import COLUMNS
from tests.validation.fms import predictions
from tests.validation.fms.heads import (
    conversion_of,
    head_as_published,
    prepared_by_trl,
    unprepared,
)
from tests.validation.fms.optimizer import _prepared
from tests.validation.fms.rows import MODELS, cell_of, reason_against, run_of

ROW = {
    "model": "mistralai/Mistral-7B-v0.1",
    "method": "lora",
    "framework_config": "none",
    "num_gpus": 1,
    "gpu": "A100-80GB",
    "torch_dtype": "bfloat16",
    "bf16_flag": "",
    "fp16_flag": "",
    "per_device_batch": 4,
    "grad_accum": 1,
    "max_seq_len": 4096,
    "packing": "packed",
    "gradient_checkpointing": "True",
    "attention": "flash_attention_2",
    "lora_r": "16.0",
    "target_modules": "q_proj k_proj",
    "optimizer": "HF default adamw_torch (foreach), adam_epsilon 1e-4",
    "versions": "torch 2.4.1 transformers 4.48.1 accelerate 1.0.1",
}


def test_a_row_becomes_the_cell_of_its_run():
    cell = cell_of(run_of(ROW))
    assert (cell.per_device_train_batch_size, cell.max_length, cell.packing) == (
        4,
        4096,
        "concatenate",
    )
    assert cell.lora is not None
    assert (cell.lora.r, cell.lora.lora_dropout) == (16, 0.1)
    assert cell.lora.target_modules == ("q_proj", "k_proj")
    assert (cell.dtype, cell.product_dtype) == ("bfloat16", "bfloat16")
    assert cell.settings["gradient_checkpointing_kwargs"] == {"use_reentrant": True}


def test_a_row_with_several_cards_is_sharded_as_the_benchmark_configures_accelerate():
    whole = ROW | {"method": "full", "num_gpus": 2}
    assert reason_against(whole) is None
    cell = cell_of(run_of(whole))
    assert (cell.num_processes, cell.strategy) == (2, "fsdp1")
    assert cell.parallel is not None
    assert cell.parallel.arguments["fsdp_config"] == {
        "version": 1,
        "reshard_after_forward": "full_shard",
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "forward_prefetch": False,
        "backward_prefetch": "BACKWARD_PRE",
        "use_orig_params": True,
        "sync_module_states": True,
    }
    assert cell_of(run_of(ROW)).num_processes == 1


def test_a_quantised_row_of_the_plugin_is_not_prepared():
    quantised = ROW | {"framework_config": "accelerated-peft-bnb"}
    assert reason_against(quantised) is None
    run = run_of(quantised | {"method": "lora", "lora_r": "16.0", "target_modules": "q_proj"})
    assert cell_of(run).quantization == "nf4"
    model = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    with unprepared():
        assert (
            peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False) is model
        )
    assert model.weight.dtype == torch.bfloat16


def test_a_file_without_a_column_gets_a_reason_and_numbers_may_have_a_point():
    left = {name: value for name, value in ROW.items() if name != "packing"}
    assert "packing" in (reason_against(left) or "")
    run = run_of(ROW | {"per_device_batch": "4.0", "grad_accum": "2.0", "optimizer": "adamw_8bit"})
    assert (run.batch, run.accumulation, run.optimizer) == (4, 2, "adamw_8bit")
    assert cell_of(run).settings["optim"] == "adamw_8bit"


def test_rows_are_not_longer_than_the_model_has_positions():
    run = run_of(ROW | {"model": "bigcode/gpt_bigcode-santacoder", "method": "full"})
    assert (run.length, run.rank, run.targets) == (2048, 0, ())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_gpus": ""}, "num_gpus"),
        ({"per_device_batch": "auto"}, "per_device_batch"),
        ({"max_seq_len": ""}, "max_seq_len"),
        ({"lora_r": ""}, "lora_r"),
        ({"target_modules": " "}, "target_modules"),
        ({"method": "prefix tuning"}, "prefix tuning"),
        ({"torch_dtype": "int8"}, "int8"),
        ({"versions": "torch 2.4.1"}, "versions"),
        ({"optimizer": "lion"}, "lion"),
        ({"framework_config": "megablocks"}, "megablocks"),
        (
            {"framework_config": "accelerated-peft-bnb-foak", "target_modules": "q_proj up_proj"},
            "perceptron",
        ),
        ({"packing": "padding-free"}, "not packed"),
        ({"packing": ""}, "packing"),
        ({"attention": "sdpa"}, "sdpa"),
        ({"model": "someone/unheard-of"}, "unheard-of"),
    ],
)
def test_rows_that_are_not_covered_have_a_reason(changed, named):
    assert reason_against(ROW) is None
    reason = reason_against(ROW | changed)
    assert reason is not None
    assert named in reason


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Mistral-7B-v0.1", 7_241_732_096),
        ("Llama-3-8B", 8_030_261_248),
        ("Llama-2-70b-hf", 68_976_648_192),
        ("Llama-2-7b-hf", 6_738_415_616),
        ("Llama-2-13b-hf", 13_015_864_320),
        ("Mixtral-8x7B-v0.1", 46_702_792_704),
    ],
)
def test_configs_have_the_published_numbers_of_parameters(name, parameters):
    import torch
    from transformers import AutoModelForCausalLM

    config = AutoConfig.from_pretrained(MODELS / f"{name}.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_heads_keep_the_logits_that_a_version_kept():
    """At the loss: the logits kept, the shifted copy, and its logarithms; a multiple of 64 * 1,000 elements."""
    import torch

    config = AutoConfig.for_model(
        "llama",
        vocab_size=1000,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )

    def factory(device):
        model = LlamaForCausalLM(config).to(torch.bfloat16).to(device)
        tokens = torch.zeros(1, 64, dtype=torch.long, device=device)
        return lambda: model(input_ids=tokens, labels=tokens, use_cache=False).loss

    peaks = {}
    for version in ((4, 45), (4, 48)):
        with head_as_published("llama", version):
            peaks[version] = trace(factory, steps=1, target=Target(padding=False)).peak_bytes
    # Since 4.46, the bfloat16 logits are kept beside their float32 copy.
    assert peaks[4, 48] - peaks[4, 45] == 2 * 64 * 1000
    assert conversion_of("gpt_bigcode", (4, 48)) == "none"


def test_gpt_bigcode_keeps_the_projections_of_all_layers_until_its_forward_pass_ends():
    """Without gradients nothing else is kept: per layer, keys, values and queries of 64 tokens in float32."""
    import torch

    def factory(layers):
        def made(device):
            config = AutoConfig.for_model(
                "gpt_bigcode", vocab_size=10, n_embd=32, n_head=2, n_layer=layers, n_positions=64
            )
            model = GPTBigCodeForCausalLM(config).to(device)
            tokens = torch.zeros(1, 64, dtype=torch.long, device=device)

            def step():
                with torch.no_grad():
                    return model(input_ids=tokens, labels=tokens, use_cache=False).loss

            return step

        return made

    def growth():
        few, many = (
            trace(factory(layers), steps=1, target=Target(padding=False)) for layers in (2, 6)
        )
        return many.peak_bytes - few.peak_bytes

    plain = growth()
    with head_as_published("gpt_bigcode", (4, 48)):
        kept = growth()
    assert kept - plain == 4 * 64 * (32 + 2 * 16) * 4


def test_refused_rows_are_written_without_a_process():
    rows = pd.DataFrame([ROW | {"num_gpus": ""}, ROW | {"framework_config": "unheard-of"}])
    written = predictions.predict_rows(rows)
    assert list(written.columns) == [*ROW, *COLUMNS]
    assert written["predicted_allocated_bytes"].isna().all()
    assert written["not_predicted"].notna().all()


def test_measured_peaks_are_bytes_and_failures_have_none():
    rows = pd.DataFrame([ROW] * 2).assign(
        peak_allocated_bytes=[100.0, ""], outcome=["ok", "failed"]
    )
    found = predictions.measured(rows)
    assert found is not None
    assert found["low"].tolist()[0] == found["high"].tolist()[0] == 100
    assert found["low"].isna().tolist() == found["failed"].tolist() == [False, True]
    assert found["group"][0] == "causal-lm, lora, none"
    assert predictions.measured(pd.DataFrame([ROW])) is None


def test_what_a_measurement_left_out_is_taken_off_allocated_memory_alone():
    ends = [f"{end}bytes" for end in ("", "low_", "high_")]
    figures = {f"predicted_{name}_{end}": 100 for name in ("allocated", "reserved") for end in ends}
    found = predictions.as_measured(figures, 30)
    assert [found[f"predicted_allocated_{end}"] for end in ends] == [70] * 3
    assert [found[f"predicted_reserved_{end}"] for end in ends] == [100] * 3


def test_trl_prepares_a_model_with_norms_in_float32_alone():
    config = AutoConfig.for_model(
        "llama",
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    with prepared_by_trl():
        peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert model.model.norm.weight.dtype == torch.float32
    assert not model.lm_head.weight.requires_grad


def test_states_are_made_once_and_move_nothing():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight], weight_decay=0.0)
    trainer = SimpleNamespace(optimizer=SimpleNamespace(optimizer=optimizer))
    seen = []
    step = _prepared(lambda self: seen.append(dict(optimizer.state[weight])))
    step(trainer)
    step(trainer)
    assert weight.tolist() == [1, 1]
    assert weight.grad is None
    assert [state["step"].item() for state in seen] == [1, 1]
