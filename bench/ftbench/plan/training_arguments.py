"""The settings that `transformers.TrainingArguments` takes, read without importing transformers.

The parent process must stay small (a child inherits its parent's peak memory), and importing
transformers pulls in torch. The class is a dataclass, so its source says everything needed here:
`training_fields()` parses that file and returns the name and the type of each field.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ftbench.base.errors import ProfileError, nearest_name

# Decided by ftbench itself: one process and one device per cell, outputs in the run directory.
RESERVED_ARGUMENTS: dict[str, str] = {
    "output_dir": "a cell writes into its run directory",
    "use_cpu": "name the device with run.device",
    "auto_find_batch_size": "it would change the batch size that the cell stands for",
    "skip_memory_metrics": "the Trainer's own tracker resets the peaks and keeps a core busy",
    "disable_tqdm": "progress is shown by ftbench",
    "do_train": "every cell trains",
    "do_eval": "every cell evaluates",
    "do_predict": "no cell predicts",
    "resume_from_checkpoint": "a cell is run whole or not at all",
    "push_to_hub": "a cell uploads nothing",
    "hub_token": "a cell uploads nothing",
    "hub_model_id": "a cell uploads nothing",
    "local_rank": "the launcher numbers the processes",
    "fsdp": "processes share a model by parallel.strategy",
    "fsdp_config": "its fields are in the table parallel",
    "deepspeed": "its engine is neither predicted nor run: see parallel.strategy",
    "parallelism_config": "processes share a model by parallel.strategy",
    "prediction_loss_only": "accuracy needs the predictions",
    "debug": "it changes what is measured",
    "remove_unused_columns": "the columns are chosen by the workload",
    "label_names": "the columns are chosen by the workload",
    "logging_dir": "outputs go into the run directory",
}


# Settings that mean nothing at zero or below.
POSITIVE = ("num_train_epochs", "per_device_eval_batch_size", "gradient_accumulation_steps")
# The files that define the class and the enums it uses.
_SOURCES = ("training_args.py", "trainer_utils.py")
_PLAIN_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "Any": Any,
    "Literal": Literal,
    "None": None,
}


class _TypeNames(dict[str, Any]):
    """Names that annotations use; an unknown name stands for any type."""

    def __missing__(self, key: str) -> Any:
        return Any


@functools.cache
def training_fields() -> dict[str, Any]:
    """Return the type of each field of the installed `TrainingArguments`, by name.

    An enum is a Literal of its values, which is how a profile writes them. Raises ProfileError
    if transformers is not installed or its source has no such class.
    """
    classes = _class_definitions()
    if "TrainingArguments" not in classes:
        raise ProfileError("no class TrainingArguments in the installed transformers")
    enums = {
        name: Literal[values] for name, node in classes.items() if (values := _enum_values(node))
    }
    names = _TypeNames(_PLAIN_TYPES | enums)
    fields = {}
    for item in classes["TrainingArguments"].body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            # `Enum | str` means the enum's values: transformers turns the text into a member.
            text = ast.unparse(item.annotation)
            text = re.sub(r"\b(\w+) \| str\b", lambda m: m[1] if m[1] in enums else m[0], text)
            # The text comes from the installed transformers, whose code a worker runs anyway.
            fields[item.target.id] = eval(text, {"__builtins__": {}}, names)
    return fields


def _class_definitions() -> dict[str, ast.ClassDef]:
    """Return the classes of the transformers files that matter here, by name."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ProfileError("transformers is not installed", hint="python -m pip install ftbench")
    trees = [
        ast.parse(Path(spec.origin).with_name(name).read_text(encoding="utf-8"))
        for name in _SOURCES
    ]
    return {
        node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)
    }


def _enum_values(node: ast.ClassDef) -> tuple[str, ...]:
    """Return the values of an enum of strings; empty for any other class."""
    if not any("Enum" in ast.unparse(base) for base in node.bases):
        return ()
    values = [
        item.value.value
        for item in node.body
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
    ]
    return tuple(value for value in values if isinstance(value, str))


def check_setting(name: str, value: object, *, where: str, also: Iterable[str] = ()) -> Any:
    """Return the value of a training setting in its own type (2 becomes 2.0 for a float).

    Raises ProfileError for a name that a profile may not give, or a value of another type; `also`
    holds other names valid in that place, for the suggestion.
    """
    fields = training_fields()
    if name in RESERVED_ARGUMENTS:
        raise ProfileError("a profile cannot set this", where=where, hint=RESERVED_ARGUMENTS[name])
    if name not in fields:
        raise ProfileError(
            "unknown key",
            where=where,
            got=f"{name} = {value!r}",
            expected="a field of transformers.TrainingArguments",
            nearest=nearest_name(name, (set(fields) - set(RESERVED_ARGUMENTS)).union(also)),
        )
    try:
        checked = _adapter(name).validate_python(value)
        json.dumps(checked, allow_nan=False)
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ProfileError(
                "not usable", where=where, got=repr(value), expected="finite numbers, texts, lists"
            ) from error
        raise _wrong_type(name, value, where) from error
    if name in POSITIVE and isinstance(checked, (int, float)) and checked <= 0:
        raise ProfileError("not usable", where=where, got=repr(value), expected="greater than 0")
    return checked


def _wrong_type(name: str, value: object, where: str) -> ProfileError:
    """Return the error for a value that is not of its setting's type."""
    kind = training_fields()[name]
    return ProfileError(
        "not usable" if _choices(kind) else "wrong type",
        where=where,
        got=f"{value!r} ({type(value).__name__})",
        expected=_describe(kind),
        nearest=nearest_name(str(value), _choices(kind)),
    )


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(training_fields()[name], config=ConfigDict(strict=True))


def _describe(kind: Any) -> str:
    """Return a type in the words of a profile: `float`, `str or int`."""
    if choices := _choices(kind):
        return f"one of {', '.join(choices)}"
    options = [option for option in (get_args(kind) or (kind,)) if option is not type(None)]
    return " or ".join(getattr(option, "__name__", str(option)) for option in options)


def _choices(kind: Any) -> tuple[str, ...]:
    """Return the values that an enum allows; empty for any other type."""
    return get_args(kind) if get_origin(kind) is Literal else ()
