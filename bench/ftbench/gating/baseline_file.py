"""The file of a baseline: JSON made for reading in a diff, one line per cell and one per part.

1   cells, slopes, parts and lengths under names in words; read by `ftbench.gating.baseline_format_1`
2   values throughout
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ftbench.base.errors import BaselineError, RunDirectoryError
from ftbench.base.files import write_atomically
from ftbench.gating.baseline import Baseline
from ftbench.gating.baseline_format_1 import read_format_1
from ftbench.gating.json_file import read_json_file
from ftbench.records.prediction import Part

SCHEMA_VERSION: Literal[2] = 2
FOLDER = Path("reports") / "baselines"
# Far above any real file: a larger one is not read into memory.
MAX_BYTES = 64 * 2**20
_READERS: Mapping[int, Callable[[Any], Baseline]] = {
    1: read_format_1,
    SCHEMA_VERSION: Baseline.model_validate,
}


def baseline_path(profile: str) -> Path:
    """Return where a profile's baseline is kept, from the current folder on."""
    return FOLDER / f"{profile}.json"


def write_baseline(baseline: Baseline, file: Path) -> None:
    """Write a baseline; raises BaselineError if that is not possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, baseline_text(baseline))
    except OSError as error:
        raise BaselineError(f"cannot be written: {error.strerror}", where=str(file)) from error
    except RunDirectoryError as error:
        raise BaselineError(error.what, where=str(file)) from error


def read_baseline(file: Path) -> Baseline:
    """Return the baseline in a file of any format; raises BaselineError if there is none, or it is malformed."""
    data = _read(file)
    known = data.pop("schema_version", None) if isinstance(data, dict) else None
    if type(known) is not int or known not in _READERS:
        raise BaselineError(
            "not a baseline that this version of ftbench knows",
            where=str(file),
            got=f"schema_version {known}",
            expected=" or ".join(map(str, _READERS)),
        )
    try:
        return _READERS[known](data)
    except ValidationError as error:
        finding = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, finding["loc"])) or "the whole file"
        raise BaselineError(
            f"not a baseline: {place}: {finding['msg']}", where=str(file)
        ) from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"not a baseline: {error}", where=str(file)) from error


def _read(file: Path) -> Any:
    try:
        return read_json_file(file, MAX_BYTES)
    except FileNotFoundError:
        raise BaselineError(
            "there is no baseline", where=str(file), hint="`ftbench baseline write` makes one"
        ) from None
    except OSError as error:
        what = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise BaselineError(f"cannot be read: {what}", where=str(file)) from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"cannot be read: {error}", where=str(file)) from error


def baseline_text(baseline: Baseline) -> str:
    """Return a baseline as the text of its file."""
    data = baseline.model_dump(mode="json")
    for group, made in zip(data["groups"], baseline.groups, strict=True):
        group["parts"] = [_part_data(part) for part in sorted(made.parts, key=_part_order)]
        group["reference"] = _without_none(group["reference"])
        for cell in group["cells"]:
            cell["cell"] = _without_none(cell["cell"])
            if not cell["cards"]:
                del cell["cards"]
            for name in ("live_blocks", "growth_bytes"):
                if cell[name] is None:
                    del cell[name]
    if data["measured"] is None:
        del data["measured"]
    else:
        for cell in data["measured"]["cells"]:
            cell["cell"] = _without_none(cell["cell"])
    return _lines({"schema_version": SCHEMA_VERSION, **data}) + "\n"


def _part_data(part: Part) -> dict[str, Any]:
    # The line of code moves with every edit of its file, and is no part of what was accepted.
    return part.model_dump(mode="json", exclude={"source"})


def _part_order(part: Part) -> tuple[str, ...]:
    return part.role, part.module, part.operator, part.dtype


def _without_none(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if value is not None}


_ROWS = ("cells", "slopes", "largest", "parts")  # tables with one line per row


def _lines(data: Any, depth: int = 0, *, rows: bool = False) -> str:
    """Return JSON with one line per figure, and one per row of a table."""
    inner, indent = " " * (depth + 1), " " * depth
    if isinstance(data, dict) and data:
        items = (
            f"{inner}{json.dumps(k)}: {_lines(v, depth + 1, rows=k in _ROWS)}"
            for k, v in data.items()
        )
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(data, list) and data:
        each = (json.dumps(v) if rows else _lines(v, depth + 1) for v in data)
        return "[\n" + ",\n".join(inner + text for text in each) + f"\n{indent}]"
    return json.dumps(data)
