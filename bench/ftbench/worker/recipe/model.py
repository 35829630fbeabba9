"""Model and tokenizer, from a directory, a hub commit or the config of an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ftbench.base.errors import WorkloadError, nearest_name
from ftbench.plan.sources import ModelSource, Source
from ftbench.worker.tasks.protocol import Task

# Tokenizers with no limit of their own report a huge number (transformers' VERY_LARGE_INTEGER).
_NO_LIMIT = 10**9


def _revision(source: Source) -> dict[str, str]:
    return {"revision": source.revision} if source.kind == "hub" else {}


def load_tokenizer(model: ModelSource) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with a padding token (the end-of-text token if it has none).

    Raises WorkloadError.
    """
    source = model.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, trust_remote_code=False, **_revision(source)
        )
    except Exception as error:  # OSError, ValueError or KeyError, depending on what is missing
        raise WorkloadError(
            f"no tokenizer: {error}", where="workload.tokenizer", got=source.reference
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model: ModelSource, labels: Sequence[str], task: Task) -> PreTrainedConfig:
    """Return the config with the fields of the task and its classes, and the profile's overrides.

    Raises WorkloadError for an override that is unknown or not allowed.
    """
    source = model.source
    names = task.config_fields(labels)
    known = _config(source, **names)
    for name, value in model.config:
        if name in names or not hasattr(known, name):
            raise WorkloadError(
                "this field follows from the data or the task" if name in names else "unknown key",
                where=f"workload.config.{name}",
                got=repr(value),
                expected=f"a field of {type(known).__name__}",
                nearest=nearest_name(name, known.to_dict()),
            )
    # A new config instead of a changed one, since some fields are derived from others when it is made.
    return _config(source, **names, **dict(model.config)) if model.config else known


def _config(source: Source, **fields: Any) -> PreTrainedConfig:
    try:
        if source.kind == "architecture":
            return AutoConfig.for_model(source.location, **fields)
        return AutoConfig.from_pretrained(
            source.location, trust_remote_code=False, **_revision(source), **fields
        )
    except Exception as error:
        raise WorkloadError(
            f"no model config: {error}", where="workload.model", got=source.reference
        ) from error


def load_model(
    model: ModelSource,
    labels: Sequence[str],
    task: Task,
    *,
    attn_implementation: str,
    pad_token_id: int | None = None,
) -> PreTrainedModel:
    """Return the task's model in float32, its new head initialised from torch's global generator.

    Weights are read from safetensors only, unless the workload says `any` (then torch unpickles only
    weights). Code that comes with a model is never run. Raises WorkloadError.
    """
    config = load_config(model, labels, task)
    if config.pad_token_id is None:
        config.pad_token_id = pad_token_id
    try:
        if model.weights == "random":
            return task.auto_model.from_config(
                config, attn_implementation=attn_implementation, dtype=torch.float32
            )
        return task.auto_model.from_pretrained(
            model.source.location,
            config=config,
            attn_implementation=attn_implementation,
            dtype=torch.float32,
            use_safetensors=True if model.weights_format == "safetensors" else None,
            trust_remote_code=False,
            **_revision(model.source),
        )
    except Exception as error:
        raise WorkloadError(
            f"the model cannot be loaded: {error}",
            where="workload.model",
            got=model.source.reference,
        ) from error


def length_limit(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, own_tokenizer: bool
) -> int | None:
    """Return the longest sequence, in tokens, that model and tokenizer accept; None without a limit."""
    limits = []
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int):
        # RoBERTa and related models number positions from padding_idx + 1.
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
        limits.append(positions - offset)
    if own_tokenizer and tokenizer.model_max_length < _NO_LIMIT:
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)


_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "roberta-prelayernorm",
        "longformer",
        "data2vec-text",
    }
)
