"""Rows: what a row of the published file asks for, as a run that can be traced, or the reason why it cannot.

Source of the settings: github.com/foundation-model-stack/fms-acceleration, `scripts/benchmarks`: TRL's SFTTrainer
in half precision with flash attention 2, gradient checkpointing, adamw_torch and texts packed to `max_seq_len`
tokens. The models are named by their shape: `models/` has the configs, from the models' pages on the Hugging Face
hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ftbench.plan.cell import Cell
from ftbench.plan.profile import Profile
from ftbench.plan.resolve import resolve
from ftbench.prediction.trace.trace_trainer import COVERED_OPTIMIZERS

MODELS = Path(__file__).with_name("models")
# The hub's other names of a shape, in lower case.
_SAME_SHAPE = {
    "meta-llama-3-8b": "Llama-3-8B",
    "llama-3-8b": "Llama-3-8B",
    "llama-2-70b": "Llama-2-70b-hf",
    "mixtral-8x7b-instruct-v0.1": "Mixtral-8x7B-v0.1",
}
# The examples of a trace: enough for its steps, at any batch size here.
_TRAIN_SIZE = 1024
# NF4 of bitsandbytes through fms-acceleration's plugin, which leaves norms, embeddings and head in half precision.
QUANTIZED = "accelerated-peft-bnb"
# The same without the plugin: the model is prepared for training by TRL and peft.
BASELINE = "baseline-peft-bnb"
# A base that GPTQ quantised before; the plugin leaves it in float16.
GPTQ = "accelerated-peft-autogptq"
# Inputs that share a scale, by the checkpoints' pages: 128, but all inputs of an output in the largest models.
_GROUPS = {"Llama-2-70b-hf": -1, "Mixtral-8x7B-v0.1": -1}
_USUAL_GROUP = 128
_NUMBERS = ("num_gpus", "per_device_batch", "grad_accum", "max_seq_len")
_TEXTS = (
    "model",
    "method",
    "framework_config",
    "gpu",
    "packing",
    "attention",
    "optimizer",
    "versions",
)
_KNOWN = {"method": ("full", "lora"), "torch_dtype": ("bfloat16", "float16", "float32")}
# `scripts/benchmarks/accelerate.yaml`, which `accelerate launch` gets for several cards; it leaves the original
# parameters to `accelerate launch`, whose default keeps them.
_SHARDED = {
    "strategy": "fsdp1",
    "reshard_after_forward": "full_shard",
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "backward_prefetch": "BACKWARD_PRE",
    "forward_prefetch": False,
    "sync_module_states": True,
    "use_orig_params": True,
}
_EXPERTS = ("Mixtral-8x7B-v0.1",)
_FUSED = re.compile(r"foak|fast-kernels")
# What the plugin's fused LoRA has as modules; its fused multi-layer perceptron is not written here.
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "c_attn"}
_FRAMEWORKS = (
    "none",
    QUANTIZED,
    BASELINE,
    GPTQ,
    f"{GPTQ}-foak",
    "foak-fast-kernels",
    f"{QUANTIZED}-foak",
)


class Run(NamedTuple):
    """What decides the memory of a published run: of its rank 0, if it has several cards."""

    model: str
    cards: int
    method: Literal["full", "lora"]
    dtype: str
    autocast: Literal["", "bf16", "fp16"]
    batch: int
    accumulation: int
    length: int
    checkpointing: bool
    rank: int
    targets: tuple[str, ...]
    transformers: tuple[int, int]
    quantized: bool
    plugin: bool
    group: int
    fused: bool
    liger: bool
    optimizer: str


def reason_against(row: Mapping[str, Any]) -> str | None:
    """Return why a row is not predicted; None if it is."""
    if reason := _reason_against_values(row):
        return reason
    framework = str(row["framework_config"])
    if framework.removesuffix("-liger") not in _FRAMEWORKS:
        return f"the framework {framework} is not traced"
    if not str(row["packing"]).startswith("packed"):
        return "rows that are not packed, whose lengths depend on data that is not known"
    if str(row["attention"]) != "flash_attention_2":
        return f"the attention {row['attention']} is not that of these runs"
    name = _model_name(str(row["model"]))
    if name is None:
        return f"no config is known for the model {row['model']}"
    if framework.startswith((QUANTIZED, BASELINE, GPTQ)) and name in _EXPERTS:
        return "a quantised mixture of experts: transformers 5 keeps experts in one tensor, which is not quantised"
    if (
        framework.startswith((f"{QUANTIZED}-foak", f"{GPTQ}-foak"))
        and not _targets(row) <= _ATTENTION
    ):
        return "the plugin's fused LoRA of a multi-layer perceptron, which is not traced"
    return None


def _reason_against_values(row: Mapping[str, Any]) -> str | None:
    """Return which value is missing or not known; None if all are there."""
    lora = str(row.get("method")) == "lora"
    for name in (*_NUMBERS, *(("lora_r",) if lora else ())):
        if _whole(row.get(name, "")) is None:
            return f"{name} is not stated as a whole number"
    texts = (*_TEXTS, *(("target_modules",) if lora else ()))
    if missing := [name for name in texts if not str(row.get(name, "")).strip()]:
        return f"not stated: {', '.join(missing)}"
    for name, known in _KNOWN.items():
        if str(row[name]) not in known:
            return f"{name} {row[name]} is none of {', '.join(known)}"
    if _optimizer(row) is None:
        return f"the optimizer {row['optimizer']} is not traced"
    return None if _version(row) else "versions do not say which transformers ran"


def run_of(row: Mapping[str, Any]) -> Run:
    """Return the run of a row that `reason_against` has nothing against."""
    name = _model_name(str(row["model"]))
    assert name is not None, row["model"]
    version, optimizer = _version(row), _optimizer(row)
    assert version is not None
    assert optimizer is not None
    lora, framework = str(row["method"]) == "lora", str(row["framework_config"])
    dtype, autocast = _types(row, lora=lora)
    return Run(
        model=name,
        cards=_whole(row["num_gpus"]) or 1,
        method="lora" if lora else "full",
        dtype=dtype,
        autocast=autocast,
        batch=_whole(row["per_device_batch"]) or 1,
        accumulation=_whole(row["grad_accum"]) or 1,
        length=min(_whole(row["max_seq_len"]) or 1, longest_of(name)),
        checkpointing=_flag(row.get("gradient_checkpointing", "")),
        rank=(_whole(row["lora_r"]) or 1) if lora else 0,
        targets=tuple(str(row["target_modules"]).split()) if lora else (),
        transformers=version,
        optimizer=optimizer,
        quantized=framework.startswith((QUANTIZED, BASELINE)),
        plugin=framework.startswith((QUANTIZED, GPTQ)),
        group=_GROUPS.get(name, _USUAL_GROUP) if framework.startswith(GPTQ) else 0,
        fused=bool(_FUSED.search(framework)),
        liger=framework.endswith("-liger"),
    )


def longest_of(model: str) -> int:
    """Return the most tokens of a row: positions of the model, to which fms-hf-tuning limits `max_seq_len`.

    It takes the smaller of `max_seq_len` and the tokenizer's `model_max_length` (2,048 for SantaCoder).
    """
    config = json.loads((MODELS / f"{model}.json").read_text())
    return int(config.get("n_positions") or config["max_position_embeddings"])


def cell_of(run: Run) -> Cell:
    """Return the cell of a profile that asks for the same run."""
    training: dict[str, Any] = {
        "optim": run.optimizer,
        "gradient_accumulation_steps": run.accumulation,
        "gradient_checkpointing": run.checkpointing,
    }
    if run.checkpointing:  # transformers 4's default; 5 has the other
        training["gradient_checkpointing_kwargs"] = {"use_reentrant": True}
    if run.autocast:
        training[run.autocast] = True
    profile = Profile.model_validate(
        {
            "name": "fms",
            "num_processes": run.cards,
            "parallel": _SHARDED if run.cards > 1 else {},
            "dtype": run.dtype,
            "attn_implementation": "flash_attention_2",
            "packing": "concatenate",
            "method": run.method,
            "lora": _lora(run) if run.method == "lora" else {},
            "quantization": "nf4" if run.quantized else "none",
            "workload": {
                "task": "causal-lm",
                "model": str(MODELS / f"{run.model}.json"),
                "tokenizer": "offline:smollm2",  # only lengths matter
                "weights": "random",
                "dataset": "synthetic:full-length",
                "eval_size": 1,
            },
            "grid": [
                {
                    "max_length": [run.length],
                    "per_device_train_batch_size": [run.batch],
                    "train_size": [_TRAIN_SIZE],
                }
            ],
            "training": training,
        }
    )
    (cell,) = resolve(profile).cells
    return cell


def _lora(run: Run) -> dict[str, Any]:
    """Return LoRA's settings; the benchmark's scenarios have a dropout of 0.1, and alpha moves no memory."""
    return {"r": run.rank, "lora_dropout": 0.1, "target_modules": run.targets}


def _model_name(reference: str) -> str | None:
    """Return the name of the config of a model, by the last part of its name; None if there is none."""
    last = reference.rpartition("/")[2].lower().removesuffix("-gptq")
    known = {file.stem.lower(): file.stem for file in MODELS.glob("*.json")}
    return (_SAME_SHAPE | known).get(last)


def _whole(value: object) -> int | None:
    """Return a number that is whole and positive, also as `4.0`; None if it is no such number."""
    match = re.fullmatch(r"(\d+)(\.0+)?", str(value).strip())
    return int(match[1]) if match and int(match[1]) else None


def _version(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return major and minor of the transformers that ran."""
    found = re.search(r"transformers (\d+)\.(\d+)", str(row["versions"]))
    return (int(found[1]), int(found[2])) if found else None


def _optimizer(row: Mapping[str, Any]) -> str | None:
    """Return the name of `TrainingArguments.optim` in a description; None if there is none that is traced."""
    words = re.findall(r"\w+", str(row["optimizer"]))
    return next((word for word in words if word in COVERED_OPTIMIZERS), None)


def _types(row: Mapping[str, Any], *, lora: bool) -> tuple[str, Literal["", "bf16", "fp16"]]:
    """Return the type of the weights, and of autocast.

    Adapters beside weights in float16 are float32, which torch's gradient scaler accepts; the recipe refuses such
    weights as a whole. bfloat16, which needs no scaler, has the same sizes: a scaler works in place.
    """
    half = (
        "bf16"
        if _flag(row.get("bf16_flag", ""))
        else "fp16"
        if _flag(row.get("fp16_flag", ""))
        else ""
    )
    if lora and half == "fp16" and str(row["torch_dtype"]) == "float16":
        return "bfloat16", "bf16"
    return str(row["torch_dtype"]), half


def _targets(row: Mapping[str, Any]) -> set[str]:
    return set(str(row["target_modules"]).split())


def _flag(value: object) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0")
