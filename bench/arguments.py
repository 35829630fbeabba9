"""The settings that `transformers.TrainingArguments` takes, read without importing transformers.

The parent process must stay small (a child inherits its parent's peak memory), and importing
transformers pulls in torch. The class is a dataclass, so its source says everything needed here:
`training_fields()` parses that file and returns the name and the type of each field.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.errors import ProfileError, nearest_name

# What the harness itself decides: one process and one device a cell, outputs in the run directory.
OWNED: dict[str, str] = {
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
    "local_rank": "a cell has one device",
    "fsdp": "a cell has one device",
    "fsdp_config": "a cell has one device",
    "deepspeed": "a cell has one device",
    "parallelism_config": "a cell has one device",
    "debug": "it changes what is measured",
    "remove_unused_columns": "the columns are chosen by the workload",
    "label_names": "the columns are chosen by the workload",
    "logging_dir": "outputs go into the run directory",
}


class _TypeNames(dict[str, Any]):
    """Names that annotations use; a name not known here (an enum, say) stands for its text."""

    def __missing__(self, key: str) -> Any:
        return str


@functools.cache
def training_fields() -> dict[str, Any]:
    """Return the type of each field of the installed `TrainingArguments`, by name.

    Enums are returned as `str`, which is how a profile writes them. Raises ProfileError where
    transformers is not installed or its source cannot be read.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ProfileError("transformers is not installed", hint="python -m pip install ftbench")
    source = Path(spec.origin).with_name("training_args.py")
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments":
            return {
                item.target.id: _annotation_type(ast.unparse(item.annotation))
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    raise ProfileError(f"no class TrainingArguments in {source}")


def _annotation_type(annotation: str) -> Any:
    """Return the type that an annotation's text names."""
    names = _TypeNames(
        {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
        | {"Any": Any, "Literal": Literal, "None": None}
    )
    # The text comes from the installed transformers, whose code a worker runs anyway.
    return eval(annotation, {"__builtins__": {}}, names)


def check_setting(name: str, value: object, *, where: str, also: Iterable[str] = ()) -> None:
    """Raise ProfileError unless `name` is a training setting a profile may give, of the right type.

    `also` holds other names valid in that place, for the suggestion.
    """
    fields = training_fields()
    if name in OWNED:
        raise ProfileError("a profile cannot set this", where=where, hint=OWNED[name])
    if name not in fields:
        raise ProfileError(
            "unknown key",
            where=where,
            got=f"{name} = {value!r}",
            expected="a field of transformers.TrainingArguments",
            nearest=nearest_name(name, (set(fields) - set(OWNED)).union(also)),
        )
    try:
        _adapter(name).validate_python(value)
    except ValidationError as error:
        raise ProfileError(
            "wrong type",
            where=where,
            got=f"{value!r} ({type(value).__name__})",
            expected=_describe(fields[name]),
        ) from error


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(training_fields()[name], config=ConfigDict(strict=True))


def _describe(kind: Any) -> str:
    """Return a type in the words of a profile: `float`, `str or int`."""
    options = [option for option in (get_args(kind) or (kind,)) if option is not type(None)]
    return " or ".join(getattr(option, "__name__", str(option)) for option in options)
