"""Packages that optimizers of transformers need, which are not among those that ftbench installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ftbench.base.errors import ProfileError

# The module of each package by the beginning of the values of `optim`, the longest first; see transformers'
# `trainer_optimizer.py`, which raises ImportError in the first step of a cell.
_MODULES = {
    "adamw_torch_npu": ("torch_npu", "torch-npu"),
    "adamw_torch_xla": ("torch_xla", "torch-xla"),
    "adamw_torch_4bit": ("torchao", "torchao"),
    "adamw_torch_8bit": ("torchao", "torchao"),
    "adamw_anyprecision": ("torchdistx", "torchdistx"),
    "adamw_apex_fused": ("apex", "apex"),
    "adamw_bnb": ("bitsandbytes", "bitsandbytes"),
    "adamw_8bit": ("bitsandbytes", "bitsandbytes"),
    "ademamix": ("bitsandbytes", "bitsandbytes"),
    "lion": ("bitsandbytes", "bitsandbytes"),
    "paged_": ("bitsandbytes", "bitsandbytes"),
    "rmsprop_bnb": ("bitsandbytes", "bitsandbytes"),
    "galore": ("galore_torch", "galore-torch"),
    "apollo": ("apollo_torch", "apollo-torch"),
    "lomo": ("lomo_optim", "lomo-optim"),
    "adalomo": ("lomo_optim", "lomo-optim"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "schedule_free": ("schedulefree", "schedulefree"),
    "stable_adamw": ("optimi", "torch-optimi"),
}


def require_optimizer(settings: Mapping[str, Any]) -> None:
    """Raise ProfileError if a cell's optimizer needs a package that is not installed."""
    name = str(settings.get("optim", ""))
    found = next((needed for start, needed in _MODULES.items() if name.startswith(start)), None)
    if found is None or importlib.util.find_spec(found[0]) is not None:
        return
    raise ProfileError(
        f"this optimizer needs the package {found[1]}, which is not installed",
        where="training.optim",
        got=name,
        hint=f"python -m pip install {found[1]}",
    )


def refuse_batched_scores(settings: Mapping[str, Any]) -> None:
    """Raise ProfileError if scores are to be computed batch by batch, which no score here can be."""
    if settings.get("batch_eval_metrics"):
        raise ProfileError(
            "scores are computed over all evaluation examples at once",
            where="training.batch_eval_metrics",
            got="true",
            expected="false",
            hint="eval_accumulation_steps moves a model's answers to the host step by step",
        )
