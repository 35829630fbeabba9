"""Columns: whether a file has a column, and its values as one type, as the file has them.

A file of a format without types (CSV) has texts only. Its labels are whole numbers if each of them is written as
one, else numbers if each is, else texts: "007" is a text, and so are "NA", "None" and "null". Nothing but an empty
field is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ftbench.base.errors import WorkloadError, nearest_name
from ftbench.base.text import joined

# Columns of a table that has been read: the number of the row as the file shows it, and the file.
ROW, FILE = "\0row", "\0file"
# Rows that an error names.
FIRST = 5
_WHOLE = re.compile(r"\s*-?(0|[1-9]\d{0,17})\s*")
_NUMBER = re.compile(r"\s*[+-]?(((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|nan|NaN|NAN)\s*")
_FLAG = re.compile(r"true|false", re.IGNORECASE)
_NAMES: dict[type, str] = {
    str: "texts",
    bool: "true or false",
    int: "whole numbers",
    float: "numbers",
    list: "lists",
    dict: "objects",
}
_INT64 = range(-(2**63), 2**63)


def require_column(column: str, setting: str, names: Sequence[str], file: str) -> None:
    """Raise WorkloadError unless a file has a column, once."""
    found = list(names).count(column)
    if found == 1:
        return
    shown = ", ".join(repr(name) if name.strip() != name else name for name in names[:30])
    more = f" and {len(names) - 30:,} more" if len(names) > 30 else ""
    raise WorkloadError(
        f"{found} columns have this name in {file}" if found else f"no such column in {file}",
        where=setting,
        got=column,
        expected=f"one of {shown}{more}",
        nearest=None if found else nearest_name(column, names),
    )


def of_python(values: Sequence[Any], rows: Sequence[int], column: str, file: Path) -> pa.Array:
    """Return values that a JSON reader gave as an array of one type.

    Raises WorkloadError, with a row of each type, for values of several types; and for a value that has no place in
    an array: a text with half of a surrogate pair, or a number beyond 64 bits.
    """
    first: dict[type, int] = {}
    for place, value in enumerate(values):
        if value is not None:
            first.setdefault(type(value), place)
    if first.keys() == {int, float}:  # 1 and 1.5 are both numbers
        first.pop(int)
    if len(first) > 1:
        kinds = " and ".join(_NAMES[kind] for kind in first)
        raise WorkloadError(
            f"column {column} holds {kinds}",
            where="workload.dataset",
            got="; ".join(f"row {rows[at]:,}: {_short(values[at])}" for at in first.values())
            + f", in {file}",
            expected="values of one type",
        )
    kind = next(iter(first), None)
    _require_storable(values, kind, rows, column, file)
    if kind is None:
        return pa.nulls(len(values))
    return pa.array(values, _TYPES.get(kind))


_TYPES: Mapping[type, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
}


def _require_storable(
    values: Sequence[Any], kind: type | None, rows: Sequence[int], column: str, file: Path
) -> None:
    """Raise WorkloadError for a value that an array of this kind cannot hold."""
    checks: dict[type | None, tuple[Callable[[Any], bool], str]] = {
        str: (_half_a_pair, "half of a surrogate pair, which is no character"),
        int: (lambda value: value not in _INT64, "a number beyond 64 bits"),
        float: (
            lambda value: isinstance(value, int) and value not in _INT64,
            "a number beyond 64 bits",
        ),
    }
    wrong, what = checks.get(kind, (None, ""))
    if wrong is None:
        return
    for value, row in zip(values, rows, strict=True):
        if value is not None and wrong(value):
            raise WorkloadError(
                f"column {column} has {what}",
                where="workload.dataset",
                got=f"row {row:,}: {_short(value)}, in {file}",
            )


def _half_a_pair(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _short(value: Any) -> str:
    try:
        text = ascii(value) if isinstance(value, str) and _half_a_pair(value) else repr(value)
    except ValueError:  # Python does not write numbers of more than 4300 digits
        return "a number of more than 4,300 digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_text(values: pa.ChunkedArray) -> bool:
    """Return whether a column has texts."""
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def of_arrow(values: pa.ChunkedArray, column: str, file: Path) -> pa.ChunkedArray:
    """Return a typed column as plain values: categories as their texts, bytes as the UTF-8 that they must be."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return of_arrow(values.cast(kind.value_type), column, file)
    if not (is_text(values) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return values
    try:
        texts = values if is_text(values) else values.cast(pa.large_string())
        texts.validate(full=True)
        return texts
    except pa.ArrowInvalid:  # UTF-8 is not checked when a file is read
        values = values.cast(pa.large_binary())
    for row, value in enumerate(values.to_pylist(), start=1):
        try:
            (value or b"").decode()
        except UnicodeDecodeError as error:
            near = value[max(0, error.start - 20) : error.start + 20]
            raise WorkloadError(
                f"column {column} holds bytes that are not UTF-8",
                where="workload.dataset",
                got=f"row {row:,}, byte {error.start:,} of its value: {near!r}, in {file}",
                hint="write the column as texts",
            ) from error
    raise AssertionError("every value is UTF-8")


def with_numbers(texts: pa.ChunkedArray, *, flags: bool = False) -> pa.ChunkedArray:
    """Return a column of an untyped file as numbers if each value is written as one, else unchanged.

    With `flags`, a column of true and false becomes one of truth values.
    """
    found = texts.drop_null().unique().to_pylist()
    if not found:
        return texts
    if all(map(_WHOLE.fullmatch, found)):
        return _mapped(texts, found, int, pa.int64())
    if all(map(_NUMBER.fullmatch, found)):
        return _mapped(texts, found, float, pa.float64())
    if flags and all(map(_FLAG.fullmatch, found)):
        return _mapped(texts, found, lambda text: text.lower() == "true", pa.bool_())
    return texts


def _mapped(
    texts: pa.ChunkedArray, found: Sequence[str], value: Callable[[str], Any], kind: pa.DataType
) -> pa.ChunkedArray:
    values = pa.array([value(text) for text in found], kind)
    places = pc.index_in(texts, value_set=pa.array(found, texts.type))
    return (
        pc.take(values, places)
        if isinstance(places, pa.Array)
        else pa.chunked_array([pc.take(values, chunk) for chunk in places.chunks], kind)
    )


def missing(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a mask of the values that are missing: null, not a number, or a text of nothing but spaces."""
    if pa.types.is_floating(values.type):
        return pc.is_null(values, nan_is_null=True)
    if is_text(values):
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
        return pc.fill_null(blank, True)
    return pc.is_null(values)


def rows_named(table: pa.Table, mask: pa.ChunkedArray) -> str:
    """Return the first rows of a mask in words: `rows 3, 8 and 12 of data.csv`, with the number of the others."""
    chosen = table.select([ROW, FILE]).filter(mask)
    first = chosen.slice(0, FIRST).to_pylist()
    by_file: dict[str, list[str]] = {}
    for row in first:
        by_file.setdefault(row[FILE], []).append(f"{row[ROW]:,}")
    words = "; ".join(
        f"row{'s' if len(rows) > 1 else ''} {joined(rows)} of {file}"
        for file, rows in by_file.items()
    )
    more = len(chosen) - len(first)
    return f"{words}, and {more:,} more" if more else words


def combined(tables: Sequence[pa.Table], files: Sequence[str]) -> pa.Table:
    """Return the rows of several files as one table; raises WorkloadError if a column's types do not agree."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        for column in tables[0].column_names:
            types = {
                str(t.schema.field(column).type): f for t, f in zip(tables, files, strict=True)
            }
            if len(types) > 1:
                raise WorkloadError(
                    f"column {column} has another type in another file",
                    where="workload.dataset",
                    got="; ".join(f"{kind} in {file}" for kind, file in types.items()),
                    expected="one type in all files of a split",
                ) from error
        raise
