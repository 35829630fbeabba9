"""The model, from a directory, a hub commit or the config of an architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ftbench.base.errors import ProfileError, WorkloadError, nearest_name
from ftbench.base.units import format_bytes
from ftbench.plan.profile import WeightsDtype
from ftbench.plan.sources import ModelSource, Source
from ftbench.records.checkpoint import Checkpoint
from ftbench.worker.measure.device import DTYPES
from ftbench.worker.recipe.quantization import QuantizedBody
from ftbench.worker.recipe.sources import location_of, revision_of
from ftbench.worker.tasks.protocol import Task

# Tokenizers with no limit of their own report a huge number (transformers' VERY_LARGE_INTEGER).
_NO_LIMIT = 10**9
# A model is built layer by layer, even without memory: no model has as many layers as this.
_MOST_LAYERS = 10_000
_SHOWN_NAMES = 3


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model, and where its parameters came from; `checkpoint` is None if all are random on purpose."""

    model: PreTrainedModel
    checkpoint: Checkpoint | None

    @property
    def attention(self) -> str | None:
        """Return the attention implementation that the model runs."""
        found: str | None = getattr(self.model.config, "_attn_implementation", None)
        return found


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
            location_of(source), trust_remote_code=False, **revision_of(source), **fields
        )
    except WorkloadError:
        raise
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
    dtype: WeightsDtype = "float32",
    quantized: QuantizedBody | None = None,
    pad_token_id: int | None = None,
) -> LoadedModel:
    """Return the task's model with weights of this type, its new head initialised from torch's global generator.

    Weights are read from safetensors only, unless the workload says `any` (then torch unpickles only
    weights). A head of another shape is made anew. Code that comes with a model is never run. Raises
    WorkloadError, also if parameters outside the head are not in the checkpoint, unless the workload accepts
    that; ProfileError for an attention that the model does not have.
    """
    config = load_config(model, labels, task)
    attention = attention_for(config, task, attn_implementation)
    for part in (config, config.get_text_config()):  # one and the same, but for several modalities
        # -1 is what old LLaMA checkpoints say for "none".
        if hasattr(part, "pad_token_id") and (part.pad_token_id is None or part.pad_token_id < 0):
            part.pad_token_id = pad_token_id
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = pad_token_id  # as T5 begins; a config alone may not say
    try:
        made_of = {"attn_implementation": _of_parts(config, attention), "dtype": DTYPES[dtype]}
        skeleton = None if quantized is None else _without_memory(config, task, made_of)
        if model.weights == "random":
            if quantized is not None and skeleton is not None:
                return LoadedModel(quantized.with_random_weights(skeleton), None)
            return LoadedModel(task.auto_model.from_config(config, **made_of), None)
        loaded, info = task.auto_model.from_pretrained(
            location_of(model.source),
            config=config,
            use_safetensors=True if model.weights_format == "safetensors" else None,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **made_of,
            **({} if quantized is None or skeleton is None else quantized.loading(skeleton)),
            **revision_of(model.source),
        )
    except Exception as error:
        raise WorkloadError(
            f"the model cannot be loaded: {error}",
            where="workload.model",
            got=model.source.reference,
        ) from error
    return LoadedModel(loaded, _checkpoint(loaded, info, model))


def _without_memory(
    config: PreTrainedConfig, task: Task, made_of: dict[str, Any]
) -> PreTrainedModel:
    """Return the task's model on the device `meta`, whose tensors have sizes only."""
    with torch.device("meta"):
        made: PreTrainedModel = task.auto_model.from_config(config, **made_of)
    return made


def model_class(config: PreTrainedConfig, task: Task) -> type[PreTrainedModel]:
    """Return the class of the task's model; raises WorkloadError if the architecture has none."""
    classes = task.auto_model._model_mapping
    if type(config) not in classes:
        raise WorkloadError(
            f"transformers has no model for {task.name} with this architecture",
            where="workload.model",
            got=config.model_type,
            expected="an architecture that reads text, such as bert, roberta, deberta-v2, modernbert or llama",
        )
    if config.model_type in _MORE_THAN_TEXT:
        raise WorkloadError(
            f"this architecture reads {_MORE_THAN_TEXT[config.model_type]}, not text alone",
            where="workload.model",
            got=config.model_type,
            expected="an architecture that reads text, such as bert, roberta, deberta-v2, modernbert or llama",
        )
    if task.name == "seq2seq-lm" and not config.is_encoder_decoder:
        raise WorkloadError(
            "this architecture is a decoder alone, which reads prompt and completion as one sequence",
            where="workload.task",
            got=f"{task.name} with {config.model_type}",
            expected="causal-lm, with the same text_column and completion_column",
        )
    found: type[PreTrainedModel] = classes[type(config)]
    return found


# Architectures of transformers whose inputs cannot be made of text.
_MORE_THAN_TEXT = {
    "layoutlmv2": "images of pages",
    "tapas": "tables",
    "voxtral_realtime": "speech with each token",
}


def attention_for(config: PreTrainedConfig, task: Task, wanted: str) -> str:
    """Return the attention implementation to use: `eager` instead of `sdpa` if the model has no other.

    `sdpa` is the default of profiles, so it means the best that the model has. Raises ProfileError for another
    one that the model does not have.
    """
    made = model_class(config, task)
    if wanted == "eager" or _has_attention(made, wanted):
        return wanted
    if wanted == "sdpa":
        return "eager"
    names = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
    raise ProfileError(
        f"{made.__name__} does not have this attention",
        where="attn_implementation",
        got=wanted,
        expected=f"one of {', '.join([*(name for name in names if _has_attention(made, name)), 'eager'])}",
    )


def _of_parts(config: PreTrainedConfig, attention: str) -> str | dict[str, str]:
    """Return the attention as transformers takes it: `eager` for the parts of a model that lack `sdpa`."""
    models: Any = MODEL_MAPPING
    parts = {name: type(getattr(config, name, None)) for name in config.sub_configs}
    lacking = [
        name
        for name, part in parts.items()
        if part in models and not _has_attention(models[part], attention)
    ]
    if attention != "sdpa" or not lacking:
        return attention
    return dict.fromkeys(("", *parts), attention) | dict.fromkeys(lacking, "eager")


def _has_attention(made: type[PreTrainedModel], name: str) -> bool:
    flags = {"sdpa": "_supports_sdpa", "flex_attention": "_supports_flex_attn"}
    flag = flags.get(name, "_supports_flash_attn")
    # Older versions of transformers named the second generation of flash attention.
    return bool(getattr(made, flag, False) or getattr(made, f"{flag}_2", False))


def require_room(
    model: ModelSource, labels: Sequence[str], task: Task, dtype: WeightsDtype = "float32"
) -> None:
    """Raise WorkloadError if the model alone needs more memory than the machine has, without making it.

    So a config with absurd sizes, or a model for a larger machine, is refused before memory is filled.
    """
    config = load_config(model, labels, task)
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > _MOST_LAYERS:
        raise WorkloadError(
            "the config has more layers than any model",
            where="workload.model",
            got=f"{layers:,} layers",
            expected=f"at most {_MOST_LAYERS:,}",
        )
    made = model_class(config, task)
    try:
        with torch.device("meta"):
            parameters = made._from_config(config, attn_implementation="eager").num_parameters()
    except Exception as error:
        raise WorkloadError(
            f"no model can be made of this config: {error}",
            where="workload.model",
            got=model.source.reference,
        ) from error
    need, room = parameters * DTYPES[dtype].itemsize, psutil.virtual_memory().total
    if need > room:
        raise WorkloadError(
            "the weights alone need more memory than this machine has",
            where="workload.model",
            got=f"{parameters:,} parameters, {format_bytes(need)}",
            expected=f"at most {format_bytes(room)}",
        )


def _checkpoint(model: PreTrainedModel, info: Any, source: ModelSource) -> Checkpoint:
    """Return which parameters came from the checkpoint; raises WorkloadError if the body lacks some.

    transformers gives parameters that the checkpoint does not have random values, and only logs their names.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    reshaped = {entry[0] for entry in info["mismatched_keys"]}
    new = sorted(name for name in {*info["missing_keys"], *reshaped} if name in sizes)
    body = sorted(name for name in new if _in_body(name, model))
    if body and source.missing_weights == "refused":
        raise WorkloadError(
            f"{len(body)} of {len(sizes)} parameters, outside the new head, are not in the checkpoint: they would"
            " be random",
            where="workload.model",
            got=f"{source.source.reference}: {_names(body)}",
            expected="a checkpoint of this architecture, with all of its layers",
            hint=(
                'to train them from random values nevertheless: missing_weights = "random" in [workload]'
            ),
        )
    return Checkpoint(
        loaded_parameters=sum(sizes.values()) - sum(sizes[name] for name in new),
        new_parameters=sum(sizes[name] for name in new),
        new=tuple(new),
        new_in_body=len(body),
        reshaped=tuple(sorted(reshaped)),
        unused=len(info["unexpected_keys"]),
    )


def _in_body(name: str, model: PreTrainedModel) -> bool:
    """Return whether a parameter belongs to the model's body, not to the head that the task adds."""
    if (
        model.base_model is model
    ):  # an architecture without a body of its own: its head is known by name
        return name.partition(".")[0] not in _HEADS
    return name.startswith(f"{model.base_model_prefix}.")


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


_HEADS = frozenset({"classifier", "score", "classification_head", "pre_classifier", "out_proj"})


def length_limit(
    config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, own_tokenizer: bool
) -> int | None:
    """Return the longest sequence, in tokens, that model and tokenizer accept; None without a limit."""
    limits = []
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:  # XLNet has -1 for no limit
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
