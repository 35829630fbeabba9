"""One table of settings: the quantities that each axis and training argument affects, and its default value.

All rules about which cells are alike (groups of a prediction or a baseline, a shared two-step pass, a batch
search, the runs behind an estimate, fits) are derived from this table. A training argument that is not in
the table, from a newer transformers, is assumed to affect every quantity.

The Trainer's arguments are those of transformers 5; `tests/unit/plan/test_settings.py` compares names and
defaults with the installed version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

# memory     bytes that the tensors of a step or an evaluation request from the allocator
# rss        resident memory of the worker on the host, beyond its tensors
# step_time  seconds of one optimizer step
# run_time   seconds of a whole run: how often it steps, evaluates, logs and saves
# accuracy   the predictions of the trained model
Quantity = Literal["memory", "rss", "step_time", "run_time", "accuracy"]
EVERYTHING: frozenset[Quantity] = frozenset(("memory", "rss", "step_time", "run_time", "accuracy"))
# shape      the three axes of every grid: memory and time are functions of them
# replicate  a seed: cells that differ only in it are replicates of each other
Role = Literal["shape", "replicate"]


def _as_it_is(value: Any) -> Any:
    return value


class Setting(NamedTuple):
    """One setting of a cell.

    `moves` are the quantities that it affects. `default` is the value in force if a profile does not name the
    setting; `also_default` are other values that the Trainer treats as the default. `memory_key` maps a value
    to the part of it that memory depends on. `meaning` says what the setting is; that of the
    Trainer's arguments is in transformers.
    """

    name: str
    moves: frozenset[Quantity]
    default: Any = None
    also_default: tuple[Any, ...] = ()
    role: Role | None = None
    memory_key: Callable[[Any], Any] = _as_it_is
    meaning: str = ""


_COST: frozenset[Quantity] = frozenset(("memory", "rss", "step_time", "run_time"))
_STEP_TIME: frozenset[Quantity] = frozenset(("step_time", "run_time"))
_RUN_TIME: frozenset[Quantity] = frozenset(("run_time",))
_ACCURACY: frozenset[Quantity] = frozenset(("accuracy",))
_LOADING: frozenset[Quantity] = frozenset(("rss", "step_time", "run_time"))
_NOTHING: frozenset[Quantity] = frozenset()

# Axes that are not fields of TrainingArguments. Shapes have no default.
AXES = (
    Setting(
        "max_length",
        EVERYTHING,
        role="shape",
        meaning="The length of a sequence, in tokens: longer texts are cut.",
    ),
    Setting(
        "train_size",
        frozenset(("memory", "rss", "run_time", "accuracy")),
        role="shape",
        meaning="The number of training examples.",
    ),
    Setting(
        "padding",
        EVERYTHING,
        "max_length",
        meaning="The length that texts are filled up to: `max_length`, or that of the `longest` in their batch.",
    ),
    Setting(
        "packing",
        EVERYTHING,
        "none",
        meaning="How texts become rows of a batch: each its own (`none`), joined and cut into rows of max_length"
        " tokens (`concatenate`), or all of a batch in one row (`padding-free`).",
    ),
    Setting(
        "attn_implementation",
        EVERYTHING,
        "sdpa",
        meaning="The implementation of attention, as transformers names it.",
    ),
    Setting(
        "method",
        EVERYTHING,
        "full",
        meaning="The parameters that are trained: all (`full`), the classification `head` alone, or LoRA's"
        " matrices and the head (`lora`).",
    ),
    Setting(
        "dtype",
        EVERYTHING,
        "float32",
        meaning="The type of the weights; gradients and the optimizer's state have that of their parameter.",
    ),
    Setting(
        "quantization",
        EVERYTHING,
        "none",
        meaning="The form of a frozen body's weights: as they are (`none`), 4 bits (`nf4`) or 8 bits (`int8`).",
    ),
    Setting(
        "num_processes",
        EVERYTHING,
        1,
        meaning="The number of processes, each on a device of its own.",
    ),
    Setting(
        "strategy",
        EVERYTHING,
        "ddp",
        meaning="How several processes share the model: `ddp`, `zero1`, `fsdp2` or `fsdp1`.",
    ),
    # glibc's allocator on the host: tensors request the same bytes.
    Setting(
        "malloc",
        _LOADING,
        "default",
        meaning="What the C library does with freed memory on the host: its default, or `keep` all of it.",
    ),
)

ARGUMENTS = (
    Setting(
        "per_device_train_batch_size",
        EVERYTHING,
        role="shape",
        meaning="Training examples in one batch of one process.",
    ),
    Setting("num_train_epochs", frozenset(("run_time", "accuracy")), 3.0),
    Setting("max_steps", frozenset(("run_time", "accuracy")), -1),
    Setting("learning_rate", _ACCURACY, 5e-5),
    Setting("lr_scheduler_type", _ACCURACY, "linear"),
    Setting("lr_scheduler_kwargs", _ACCURACY),
    Setting("warmup_steps", _ACCURACY, 0),
    Setting("warmup_ratio", _ACCURACY, 0.0),  # gone from transformers 5.23; older ones have it
    Setting("optim", EVERYTHING, "adamw_torch_fused"),
    Setting("optim_args", EVERYTHING),
    # SGD and RMSprop make another list of gradients for any decay, and none for 0.
    Setting("weight_decay", EVERYTHING, 0.0, memory_key=bool),
    Setting("adam_beta1", _ACCURACY, 0.9),
    Setting("adam_beta2", _ACCURACY, 0.999),
    Setting("adam_epsilon", _ACCURACY, 1e-8),
    Setting("optim_target_modules", EVERYTHING),
    Setting("gradient_accumulation_steps", EVERYTHING, 1),
    Setting("average_tokens_across_devices", EVERYTHING, True),
    Setting("max_grad_norm", EVERYTHING, 1.0),
    Setting("label_smoothing_factor", EVERYTHING, 0.0),
    Setting("bf16", EVERYTHING, False),
    Setting("fp16", EVERYTHING, False),
    Setting("bf16_full_eval", EVERYTHING, False),
    Setting("fp16_full_eval", EVERYTHING, False),
    Setting("tf32", EVERYTHING),
    Setting("activation_checkpointing", _COST, False, also_default=(None,)),
    Setting("activation_checkpointing_kwargs", _COST),
    Setting("gradient_checkpointing", _COST, False, also_default=(None,)),
    Setting("gradient_checkpointing_kwargs", _COST),
    Setting("torch_compile", EVERYTHING, False),
    Setting("torch_compile_backend", EVERYTHING),
    Setting("torch_compile_mode", EVERYTHING),
    Setting("use_liger_kernel", EVERYTHING, False),
    Setting("liger_kernel_config", EVERYTHING),
    Setting("use_cache", _COST, False),
    Setting("neftune_noise_alpha", EVERYTHING, also_default=(0.0,)),
    Setting("torch_empty_cache_steps", _COST),
    Setting("logging_strategy", _COST, "steps"),
    Setting("logging_steps", _RUN_TIME, 500),
    Setting("logging_first_step", _COST, False),
    Setting("log_on_each_node", _NOTHING, True),
    Setting("logging_nan_inf_filter", _COST, True),
    Setting("include_num_input_tokens_seen", _COST, "no", also_default=(False,)),
    Setting("log_level", _NOTHING, "passive"),
    Setting("log_level_replica", _NOTHING, "warning"),
    Setting("report_to", _RUN_TIME, "none"),
    Setting("run_name", _NOTHING),
    Setting("project", _NOTHING, "huggingface"),
    Setting("trackio_space_id", _NOTHING),
    Setting("trackio_bucket_id", _NOTHING),
    Setting("trackio_static_space_id", _NOTHING),
    Setting("eval_strategy", _RUN_TIME, "no"),
    Setting("eval_steps", _RUN_TIME),
    Setting("eval_delay", _RUN_TIME, 0),
    Setting("per_device_eval_batch_size", _COST, 8),
    # The order of training and evaluation decides how the allocator's memory is fragmented.
    Setting("eval_on_start", _COST, False),
    Setting("eval_do_concat_batches", _COST, True),
    Setting("eval_use_gather_object", _COST, False),
    Setting("eval_accumulation_steps", _COST),
    Setting("include_for_metrics", _COST, []),
    Setting("batch_eval_metrics", _COST, False),
    Setting("save_only_model", _RUN_TIME, False),
    Setting("save_strategy", frozenset(("run_time", "accuracy")), "steps"),
    Setting("save_steps", frozenset(("run_time", "accuracy")), 500),
    Setting("save_on_each_node", _RUN_TIME, False),
    Setting("save_total_limit", _RUN_TIME),
    Setting("enable_jit_checkpoint", _RUN_TIME, False),
    Setting("hub_private_repo", _NOTHING),
    Setting("hub_strategy", _NOTHING, "every_save"),
    Setting("hub_always_push", _NOTHING, False),
    Setting("hub_revision", _NOTHING),
    # Decides whether the score is that of the best checkpoint or of the last.
    Setting("load_best_model_at_end", frozenset(("run_time", "accuracy")), False),
    Setting("metric_for_best_model", _ACCURACY),
    Setting("greater_is_better", _ACCURACY),
    Setting("ignore_data_skip", _NOTHING, False),
    Setting("restore_callback_states_from_checkpoint", _NOTHING, False),
    Setting("full_determinism", EVERYTHING, False),
    Setting(
        "seed", _ACCURACY, 42, role="replicate", meaning="The number that decides what is random."
    ),
    Setting("data_seed", _ACCURACY, role="replicate"),
    Setting("accelerator_config", EVERYTHING),
    Setting("dataloader_drop_last", EVERYTHING, False),
    # Batches made in another process are not counted among this process's tensors.
    Setting("dataloader_num_workers", _COST, 0),
    Setting("dataloader_pin_memory", _COST, True),
    Setting("dataloader_persistent_workers", _COST, False),
    Setting("dataloader_prefetch_factor", _COST),
    Setting("dataloader_multiprocessing_context", _COST),
    Setting("dataloader_in_order", EVERYTHING, True),
    Setting("train_sampling_strategy", EVERYTHING, "random"),
    Setting("length_column_name", EVERYTHING, "length"),
    Setting("ddp_find_unused_parameters", _COST),
    Setting("ddp_bucket_cap_mb", _COST),
    Setting("ddp_broadcast_buffers", _COST),
    Setting("ddp_static_graph", _COST),
    Setting("ddp_backend", _COST),
    Setting("ddp_timeout", _NOTHING, 1800),
)

# Settings of the workload: not axes, and equal in all cells of a profile.
# Older cells did not have them, so at its default value each is left out of a cell's identity.
WORKLOAD = (
    Setting("task", EVERYTHING, "text-classification"),
    Setting("separator", EVERYTHING),
    Setting("encoding", EVERYTHING),
    Setting("drop_rows_without_label", EVERYTHING, False),
    Setting("drop_rows_without_text", EVERYTHING, False),
    Setting("completion_column", EVERYTHING),
    Setting("messages_column", EVERYTHING),
    Setting("assistant_only_loss", EVERYTHING, False),
    Setting("max_target_length", EVERYTHING, 128),
    Setting("mlm_probability", EVERYTHING, 0.15),
    Setting("keep_logits", EVERYTHING, False),
)

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {known.name: known for known in (*AXES, *ARGUMENTS, *WORKLOAD)}
)
NON_TRAINER_AXES = tuple(axis.name for axis in AXES)
WORKLOAD_SETTINGS = tuple(known.name for known in WORKLOAD)
SHAPE = ("max_length", "per_device_train_batch_size", "train_size")


def setting(name: str) -> Setting:
    """Return a setting by its name; an unknown one affects every quantity and has no default."""
    return SETTINGS.get(name) or Setting(name, EVERYTHING)


def meaning_of(name: str) -> str:
    """Return what a setting is, in a sentence; empty for an argument of the Trainer's."""
    return setting(name).meaning


def moving(*quantities: Quantity) -> frozenset[str]:
    """Return the names of the settings that affect at least one of these quantities."""
    return frozenset(
        known.name for known in SETTINGS.values() if known.moves & frozenset(quantities)
    )


def moving_only(*quantities: Quantity) -> frozenset[str]:
    """Return the names of the settings that affect these quantities at most, or none at all."""
    return frozenset(
        known.name for known in SETTINGS.values() if known.moves <= frozenset(quantities)
    )


def with_role(role: Role) -> frozenset[str]:
    """Return the names of the settings with a role."""
    return frozenset(known.name for known in SETTINGS.values() if known.role == role)


def is_default(name: str, value: Any) -> bool:
    """Return whether a setting at this value has the same effect as leaving it out; never for a shape."""
    known = SETTINGS.get(name)
    return (known is not None and known.role != "shape") and (
        _same(value, known.default) or any(_same(value, other) for other in known.also_default)
    )


def _same(value: Any, other: Any) -> bool:
    """Return whether two values are equal in JSON: 3 and 3.0 are equal, 1 and true are not."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(value == other) or json.dumps(value) == json.dumps(other)


def canonical(name: str, value: Any) -> Any:
    """Return a setting's value as cells have it: the default if the value is treated as the default."""
    same = value == setting(name).default
    return setting(name).default if is_default(name, value) and not same else value


def without_defaults(settings: Mapping[str, Any], kept: Collection[str] = ()) -> dict[str, Any]:
    """Return settings without those at their default value; names in `kept` stay."""
    return {
        name: value
        for name, value in settings.items()
        if name in kept or not is_default(name, value)
    }


def memory_view(facets: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a cell's facets that memory depends on, without the shapes."""
    return {
        name: known.memory_key(value)
        for name, value in facets.items()
        if "memory" in (known := setting(name)).moves and known.role != "shape"
    }


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the facets that differ between two sets; a facet left out has its default."""
    names = sorted(before.keys() | after.keys())
    return [
        name
        for name in names
        if (value := before.get(name)) != (other := after.get(name))
        and not (_unsaid(name, value) and _unsaid(name, other))
    ]


def _unsaid(name: str, value: Any) -> bool:
    return value is None or is_default(name, value)


# Runs that differ only in these settings cost the same. All other facets split cells into groups.
COSTLESS = moving_only("accuracy")
# A batch search tries batches on the examples of two steps, once for all cells with the same memory.
NOT_SEARCHED = frozenset({"per_device_train_batch_size", "train_size"}) | (
    frozenset(SETTINGS) - moving("memory", "rss")
)
# Variables of the fits: runs that differ only in these and in costless settings are fitted together.
FITTED = frozenset((*SHAPE, "num_train_epochs"))
