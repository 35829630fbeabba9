"""JSON files that others wrote: read if they are plain files of a sensible size, and each name is there once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from ftbench.base.files import read_regular


def read_json_file(file: Path, max_bytes: int) -> Any:
    """Return the data in a JSON file. Raises OSError or ValueError, RecursionError for nesting without end.

    A link is not followed, a pipe or device not waited for, a name that occurs twice and NaN are not accepted.
    """
    content = read_regular(file, max_bytes)
    return json.loads(content, parse_constant=_no_number, object_pairs_hook=_each_once)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(n for n in names if names.count(n) > 1)!r} is there twice"
        )
    return found
