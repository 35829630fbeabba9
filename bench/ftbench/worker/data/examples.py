"""Examples: the rows of a split that the profile selects, checked, with the task's names of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import DataSource
from ftbench.worker.data.columns import FILE, ROW, missing, rows_named
from ftbench.worker.data.content import Reading
from ftbench.worker.data.lists import require_a_label_per_word, require_lists, texts_of
from ftbench.worker.data.splits import Split
from ftbench.worker.data.where import wanted_rows
from ftbench.worker.tasks.protocol import LABEL, TEXT, Column, Task

# Reasons for which rows are left out on request; the keys of the counts.
NO_LABEL, NO_TEXT, DUPLICATE = "without a label", "without a text", "seen before"
_HIDDEN = -1


def read_examples(
    split: Split, source: DataSource, task: Task, reading: Reading, left_out: Counter[str]
) -> pa.Table:
    """Return the examples of a split in the files' order; rows left out on request are added to the counts.

    Columns are the task's, and those that say which row of which file each example is. Raises WorkloadError if a
    column is missing, or if a value is missing or of no use, with the first rows.
    """
    columns = task.columns
    settings = {column.name: f"workload.{column.setting}" for column in columns.values()}
    conditions = {column: "workload.where" for column, _ in source.where}
    table = split.read({**conditions, **settings}, reading)
    for column, wanted in source.where:
        table = table.filter(wanted_rows(table[column], column, wanted))
    places = {ROW: table[ROW], FILE: table[FILE]}
    table = pa.table({**{key: table[column.name] for key, column in columns.items()}, **places})
    if LABEL in columns and columns[LABEL].kind == "label":
        table = _with_labels(table, source, task, left_out)
    for key, read in columns.items():
        if read.kind == "text":
            table = _with_texts(table, key, read, source, left_out)
        elif read.kind != "label":
            require_lists(table, key, read)
    if LABEL in columns and columns[LABEL].kind == "word_labels":
        require_a_label_per_word(table, TEXT, LABEL, columns[LABEL])
    if source.drop_duplicates:
        table = _without_duplicates(table, columns, left_out)
    if not len(table):
        raise WorkloadError("no row is left", where="workload.dataset", got=source.source.reference)
    return _balanced(table, task) if source.balanced else table


def _with_labels(
    table: pa.Table, source: DataSource, task: Task, left_out: Counter[str]
) -> pa.Table:
    """Return the rows with a label; raises WorkloadError for others, unless they are to be dropped."""
    where = f"workload.label_column {source.label_column}"
    labels = table[LABEL]
    _require_plain(labels, "label", where)
    absent = missing(labels)
    if source.drop_rows_without_label:
        number = pa.types.is_signed_integer(labels.type) or pa.types.is_floating(labels.type)
        if task.has_classes and number:
            absent = pc.or_(absent, pc.fill_null(pc.equal(labels, _HIDDEN), False))
        table = _dropped(table, absent, NO_LABEL, left_out)
    elif (count := _count(absent)) > 0:
        raise WorkloadError(
            f"{_rows(count)} no label",
            where=where,
            got=rows_named(table, absent),
            expected="a label in each row",
            hint="drop_rows_without_label = true, under [workload], leaves them out",
        )
    labels = table[LABEL]
    if pa.types.is_floating(labels.type):
        infinite = pc.is_inf(labels)
        if (count := _count(infinite)) > 0:
            raise WorkloadError(
                f"{_rows(count)} a label that is not a finite number",
                where=where,
                got=rows_named(table, infinite),
            )
    return table


def _with_texts(
    table: pa.Table, name: str, column: Column, source: DataSource, left_out: Counter[str]
) -> pa.Table:
    """Return the rows with a text, as texts; raises WorkloadError for others, unless they are to be dropped."""
    where = f"workload.{column.setting} {column.name}"
    _require_plain(table[name], "text", where)
    absent = missing(table[name])
    if source.drop_rows_without_text:
        table = _dropped(table, absent, NO_TEXT, left_out)
    elif (count := _count(absent)) > 0:
        raise WorkloadError(
            f"{_rows(count)} no text, or one of spaces only",
            where=where,
            got=rows_named(table, absent),
            expected="a text in each row",
            hint="drop_rows_without_text = true, under [workload], leaves them out",
        )
    texts = table[name].cast(pa.large_string() if _is_large(table[name]) else pa.string())
    return table.set_column(table.column_names.index(name), name, texts)


def _is_large(values: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_large_string(values.type))


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def _require_plain(values: pa.ChunkedArray, name: str, where: str) -> None:
    """Raise WorkloadError unless a column has one plain value in every row."""
    if pa.types.is_nested(values.type):
        raise WorkloadError(f"a {name} must be one value", where=where, got=str(values.type))


def _dropped(
    table: pa.Table, mask: pa.ChunkedArray, reason: str, left_out: Counter[str]
) -> pa.Table:
    left_out[reason] += _count(mask)
    return table.filter(pc.invert(mask))


def _without_duplicates(
    table: pa.Table, columns: Iterable[str], left_out: Counter[str]
) -> pa.Table:
    """Return the first row of each text, or pair of texts."""
    seen = texts_of(table, [name for name in columns if name != LABEL])
    first = {example: i for i, example in reversed(list(enumerate(seen)))}
    left_out[DUPLICATE] += len(seen) - len(first)
    return table.take(pa.array(sorted(first.values()), pa.int64()))


def _balanced(table: pa.Table, task: Task) -> pa.Table:
    """Return as many rows of each class as the rarest has, in their order."""
    classes = task.strata(table)
    smallest = min(map(len, classes))
    return table.take(pa.array(np.sort(np.concatenate([rows[:smallest] for rows in classes]))))
