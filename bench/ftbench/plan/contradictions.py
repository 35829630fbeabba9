"""Contradictions: settings of a cell that cannot go together, refused before anything is run or predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftbench.base.errors import ProfileError
from ftbench.plan.cell import Cell
from ftbench.plan.profile import WeightsDtype

# Autocast in float16 scales the loss, and the gradients, which have the type of the weights, back before a step.
_NOT_SCALED: Mapping[WeightsDtype, str] = {
    # `GradScaler._unscale_grads_` in torch/amp/grad_scaler.py: "Attempting to unscale FP16 gradients."
    "float16": "torch's gradient scaler cannot unscale float16 gradients",
    # "_amp_foreach_non_finite_check_and_unscale_cuda" not implemented for 'BFloat16'
    "bfloat16": "torch has no kernel on CUDA that unscales bfloat16 gradients",
}

# Optimizers of torch. Of others the Trainer knows more than a class: embeddings have states of 32 bits beside 8.
_USUAL = "adamw_torch"
_SHARDED = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")

# "FlashAttention only support fp16 and bf16 data type" (csrc/flash_attn/flash_api.cpp of flash-attn 2.8.3).
_HALF_ONLY = ("flash_attention_2", "kernels-community/flash-attn2", "flash_attention_3")


def refuse_contradictions(cell: Cell) -> None:
    """Raise ProfileError if settings of a cell cannot go together."""
    if cell.attn_implementation in _HALF_ONLY and cell.product_dtype == "float32":
        raise ProfileError(
            "flash attention takes float16 and bfloat16 only",
            where="attn_implementation",
            got=f"{cell.attn_implementation} in float32",
            expected="bf16 = true or fp16 = true, or a dtype of bfloat16 or float16",
        )
    if cell.quantization != "none" and cell.method != "lora":
        raise ProfileError(
            "quantized weights cannot be trained: they need LoRA beside them",
            where="quantization",
            got=f"{cell.quantization}, with method = {cell.method!r}",
            expected="method = 'lora'",
        )
    if cell.strategy == "zero1" and cell.settings.get("optim", _USUAL) not in _SHARDED:
        raise ProfileError(
            "this optimizer is not sharded by torch's ZeroRedundancyOptimizer as it is without",
            where="strategy",
            got=f"zero1, with training.optim = {cell.settings['optim']!r}",
            expected=f"training.optim = one of {', '.join(_SHARDED)}",
        )
    if cell.strategy == "zero1" and _saves_optimizer(cell.settings):
        raise ProfileError(
            "saving would gather the sharded optimizer on the first process, which is neither predicted nor run",
            where="strategy",
            got="zero1, with the optimizer in checkpoints",
            expected="training.save_only_model = true, or training.save_strategy = 'no'",
        )
    if cell.settings.get("fp16") and cell.dtype in _NOT_SCALED:
        raise ProfileError(
            f"fp16 = true needs float32 weights: {_NOT_SCALED[cell.dtype]}",
            where="dtype",
            got=f"{cell.dtype}, with fp16 = true",
            expected="float32, or no fp16",
        )


def _saves_optimizer(settings: Mapping[str, Any]) -> bool:
    return settings.get("save_strategy") != "no" and not settings.get("save_only_model")
