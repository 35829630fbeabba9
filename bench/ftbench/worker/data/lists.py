"""Columns of lists: words with their labels, and conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ftbench.base.errors import WorkloadError
from ftbench.worker.data.columns import rows_named
from ftbench.worker.tasks.protocol import Column, ColumnKind


def _is_conversation(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(message, dict) for message in value)
        and all(isinstance(message.get("role"), str) for message in value)
        and all(isinstance(message.get("content"), str | None) for message in value)
        and any(message.get("content") for message in value)
    )


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(w, str) for w in value)


def _is_labels(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(label, str | int) and not isinstance(label, bool) for label in value)
    )


_CHECKS: Mapping[ColumnKind, tuple[Callable[[Any], bool], str]] = {
    "messages": (_is_conversation, "a list of messages, each { role = a text, content = a text }"),
    "words": (_is_words, "a list of words"),
    "word_labels": (_is_labels, "a list of labels, one for each word"),
}


def require_lists(table: pa.Table, name: str, column: Column) -> None:
    """Raise WorkloadError unless each row of a column has a list of the kind that the task reads."""
    is_right, expected = _CHECKS[column.kind]
    values = table[name].to_pylist()
    wrong = [not is_right(value) for value in values]
    if not any(wrong):
        return
    count, first = sum(wrong), values[wrong.index(True)]
    raise WorkloadError(
        f"{'1 row is' if count == 1 else f'{count:,} rows are'} of another kind",
        where=f"workload.{column.setting} {column.name}",
        got=f"{str(first)[:80]!r}: {rows_named(table, pa.chunked_array([pa.array(wrong)]))}",
        expected=expected,
        hint="lists are read from JSON, Parquet and Arrow files"
        if isinstance(first, str)
        else None,
    )


def require_a_label_per_word(table: pa.Table, words: str, labels: str, column: Column) -> None:
    """Raise WorkloadError unless each row has as many labels as words."""
    counts = (pc.list_value_length(table[name]) for name in (words, labels))
    differ = pc.not_equal(*counts)
    if not pc.any(differ).as_py():
        return
    first = table.filter(differ).slice(0, 1).to_pylist()[0]
    raise WorkloadError(
        f"{pc.sum(differ).as_py():,} rows have another number of labels than words",
        where=f"workload.{column.setting} {column.name}",
        got=f"{len(first[words])} words, {len(first[labels])} labels: {rows_named(table, differ)}",
        expected="a label for each word",
    )


def texts_of(table: Any, names: Iterable[str]) -> list[Hashable]:
    """Return a value for each row that is equal for equal texts, of a table or a data set; lists as JSON."""
    columns = [
        values.to_pylist() if hasattr(values := table[name], "to_pylist") else values[:]
        for name in names
    ]
    return [
        tuple(v if isinstance(v, str) else json.dumps(v, sort_keys=True) for v in row)
        for row in zip(*columns, strict=True)
    ]
