"""The file of a baseline: JSON made for reading in a diff, one line per cell and one per part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ftbench.base.errors import BaselineError
from ftbench.gate.baseline import Baseline
from ftbench.records.prediction import (
    MarkName,
    Part,
)

SCHEMA_VERSION: Literal[1] = 1
FOLDER = Path("reports") / "baselines"
# Far above any real file: a larger one is not read into memory.
MAX_BYTES = 64 * 2**20


def baseline_path(profile: str) -> Path:
    """Return where a profile's baseline is kept, from the current folder on."""
    return FOLDER / f"{profile}.json"


def write_baseline(baseline: Baseline, file: Path) -> None:
    """Write a baseline; raises BaselineError where that is not possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_text(baseline_text(baseline), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise BaselineError(f"cannot be written: {error.strerror}", where=str(file)) from error


def read_baseline(file: Path) -> Baseline:
    """Return the baseline in a file; raises BaselineError where there is none, or one that is not whole."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BaselineError("too large for a baseline", where=str(file))
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            "there is no baseline", where=str(file), hint="`ftbench baseline write` makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"cannot be read: {error}", where=str(file)) from error
    known = data.pop("schema_version", None) if isinstance(data, dict) else None
    if known != SCHEMA_VERSION:
        raise BaselineError(
            "not a baseline that this version of ftbench knows",
            where=str(file),
            got=f"schema_version {known}",
            expected=str(SCHEMA_VERSION),
        )
    try:
        for group in data["groups"]:
            group["parts"] = [_part(name, nbytes) for name, nbytes in group["parts"].items()]
        return Baseline.model_validate(data)
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        raise BaselineError(f"not a baseline: {error}", where=str(file)) from error


def _part(name: str, nbytes: dict[MarkName, int]) -> Part:
    role, module, operator, dtype = name.split(" | ")
    return Part(role=role, module=module, operator=operator, dtype=dtype, nbytes=nbytes)


def baseline_text(baseline: Baseline) -> str:
    """Return a baseline as the text of its file."""
    data = baseline.model_dump(mode="json")
    for group in data["groups"]:
        parts = [Part.model_validate(part) for part in group["parts"]]
        group["parts"] = {part.name: part.nbytes for part in sorted(parts, key=lambda p: p.name)}
        for cell in group["cells"].values():
            if not cell["cards"]:
                del cell["cards"]
    if data["measured"] is None:
        del data["measured"]
    return _lines({"schema_version": SCHEMA_VERSION, **data}) + "\n"


_DEEPEST = 3  # tables further down are a line each


def _lines(data: Any, depth: int = 0) -> str:
    """Return JSON with a line for every figure, and for every table of figures deep inside."""
    inner, indent = " " * (depth + 1), " " * depth
    if isinstance(data, dict) and data and depth <= _DEEPEST:
        items = (f"{inner}{json.dumps(k)}: {_lines(v, depth + 1)}" for k, v in data.items())
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(data, list) and data and depth <= _DEEPEST:
        return "[\n" + ",\n".join(inner + _lines(v, depth + 1) for v in data) + f"\n{indent}]"
    return json.dumps(data)
