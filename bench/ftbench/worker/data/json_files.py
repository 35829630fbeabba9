"""JSON files: JSON Lines, a list of objects, or an object with a list for each column.

Rows are numbered from 1: the lines of JSON Lines, the items of a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ftbench.base.errors import WorkloadError
from ftbench.worker.data.columns import FILE, ROW, of_python, require_column
from ftbench.worker.data.content import Reading, opened_text, unreadable

_START = 4096
_MOST_NAMES = 10_000
_LINES = "JSON Lines, a list of objects, or an object with a list for each column"


def read_json(file: Path, columns: Mapping[str, str], reading: Reading) -> pa.Table:
    """Return the named columns of a file, each with values of one type, with the row's number and the file.

    `columns` gives the setting that names each column; a row without it has no value there. Raises WorkloadError if
    no row has a column, or if the file cannot be read.
    """
    values: dict[str, list[Any]] = {name: [] for name in columns}
    numbers: list[int] = []
    names: dict[str, None] = {}
    for number, row in _objects(file, reading):
        if len(names) < _MOST_NAMES:
            names.update(dict.fromkeys(row))
        numbers.append(number)
        for name, column in values.items():
            column.append(row.get(name))
    if not numbers:
        raise unreadable(file, "it is empty")
    for name, setting in columns.items():
        require_column(name, setting, list(names), file.name)
    arrays = [of_python(column, numbers, name, file) for name, column in values.items()]
    arrays += [pa.array(numbers, pa.int64()), pa.repeat(pa.scalar(file.name), len(numbers))]
    return pa.table(arrays, [*values, ROW, FILE])


def json_names(file: Path, reading: Reading) -> list[str]:
    """Return the keys of a file's rows, in the order in which they first occur; raises WorkloadError."""
    names: dict[str, None] = {}
    for _, row in _objects(file, reading):
        names.update(dict.fromkeys(row))
        if len(names) >= _MOST_NAMES:
            break
    if not names:
        raise unreadable(file, "it is empty")
    return list(names)


def _objects(file: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file with their numbers."""
    with opened_text(file, reading) as stream:
        start = stream.read(_START).lstrip("\ufeff \t\r\n")
    try:
        if start.startswith("["):
            with opened_text(file, reading) as stream:
                yield from _items(file, json.load(stream))
        elif _is_one_object(file, reading):
            with opened_text(file, reading) as stream:
                yield from _columns(file, json.load(stream))
        else:
            yield from _lines(file, reading)
    except json.JSONDecodeError as error:
        raise unreadable(
            file,
            f"{error.msg.removesuffix(' at')} in line {error.lineno:,}, column {error.colno:,}",
        ) from error
    except RecursionError as error:
        raise unreadable(file, "it is nested too deep") from error
    except ValueError as error:  # Python reads no numbers of more than 4300 digits
        raise unreadable(file, error) from error


def _is_one_object(file: Path, reading: Reading) -> bool:
    """Return whether a file is one object over several lines, or one with lists for columns."""
    with opened_text(file, reading) as stream:
        line = next((line for line in stream if line.strip()), "")
        more = any(line.strip() for line in stream)
    try:
        value = json.loads(line)
    except ValueError:
        return re.fullmatch(r"\s*\{\s*", line) is not None or (
            more and not line.rstrip().endswith("}")
        )
    columns = isinstance(value, dict) and bool(value) and not more
    return columns and all(isinstance(column, list | dict) for column in value.values())


def _lines(file: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    with opened_text(file, reading) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                place = f"in line {number:,}, column {error.colno:,}: {line[:60]!r}"
                raise unreadable(file, f"{error.msg.removesuffix(' at')} {place}") from error
            except ValueError as error:
                raise unreadable(file, f"{error}, in line {number:,}") from error
            yield number, _object(file, number, row)


def _items(file: Path, items: Sequence[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(items, start=1):
        yield number, _object(file, number, row)


def _object(file: Path, number: int, row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise WorkloadError(
        f"row {number:,} of {file.name} is not an object with the columns as keys",
        where="workload.dataset",
        got=f"{type(row).__name__} in {file}",
        expected=_LINES,
    )


def _columns(file: Path, data: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of an object that has a list, or an object by row (pandas' `to_json`), for each column."""
    columns = {
        name: list(column.values()) if isinstance(column, dict) else column
        for name, column in data.items()
    }
    lengths = {name: len(column) for name, column in columns.items() if isinstance(column, list)}
    if len(lengths) < len(data) or len(set(lengths.values())) != 1:
        raise WorkloadError(
            f"{file.name} is one object, and not one with a list of the same length for each column",
            where="workload.dataset",
            got=f"{', '.join(list(data)[:10])}, in {file}",
            expected=_LINES,
        )
    for number, row in enumerate(zip(*columns.values(), strict=True), start=1):
        yield number, dict(zip(columns, row, strict=True))
