"""Parquet files, and the Arrow files of data sets that the library datasets has saved. Rows are numbered from 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ftbench.worker.data.columns import FILE, ROW, of_arrow, require_column
from ftbench.worker.data.content import opened, unreadable


def read_parquet(file: Path, columns: Mapping[str, str]) -> pa.Table:
    """Return the named columns of a Parquet file with the row's number and the file; raises WorkloadError."""
    with opened(file) as stream:
        try:
            parquet = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
            _require(columns, parquet.schema_arrow.names, file)
            table = parquet.read(columns=list(columns)).select(list(columns))
            _require_whole(table)
        except (
            pa.ArrowException,
            OSError,
        ) as error:  # ArrowException: ArrowInvalid, ArrowNotImplementedError
            raise unreadable(file, _first_line(error)) from error
    return _with_rows(table, file)


def read_arrow(file: Path, columns: Mapping[str, str]) -> pa.Table:
    """Return the named columns of an Arrow stream with the row's number and the file; raises WorkloadError."""
    with opened(file) as stream:
        try:
            reader = pa.ipc.open_stream(stream)
            _require(columns, reader.schema.names, file)
            batches = [batch.select(list(columns)) for batch in reader]
            table = pa.Table.from_batches(batches) if batches else reader.schema.empty_table()
            _require_whole(table)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, _first_line(error)) from error
    return _with_rows(table.select(list(columns)), file)


def parquet_names(file: Path) -> list[str]:
    """Return the names of the columns of a Parquet file; raises WorkloadError."""
    with opened(file) as stream:
        try:
            return list(pq.ParquetFile(pa.PythonFile(stream, mode="r")).schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, _first_line(error)) from error


def arrow_names(file: Path) -> list[str]:
    """Return the names of the columns of an Arrow stream; raises WorkloadError."""
    with opened(file) as stream:
        try:
            return list(pa.ipc.open_stream(stream).schema.names)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, _first_line(error)) from error


def _require(columns: Mapping[str, str], names: Sequence[str], file: Path) -> None:
    for name, setting in columns.items():
        require_column(name, setting, names, file.name)


def _require_whole(table: pa.Table) -> None:
    """Raise ArrowInvalid for offsets that lie outside of a column's bytes; UTF-8 is checked later."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _with_rows(table: pa.Table, file: Path) -> pa.Table:
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, of_arrow(table[name], name, file))
    rows = pa.array(range(1, len(table) + 1), pa.int64())
    files = pa.repeat(pa.scalar(file.name), len(table))
    return table.append_column(ROW, rows).append_column(FILE, files).replace_schema_metadata(None)


def class_names(file: Path) -> dict[str, list[str]]:
    """Return the names of the classes of each column that has them in a Parquet file's own description."""
    with opened(file) as stream:
        try:
            metadata = pq.read_schema(pa.PythonFile(stream, mode="r")).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, _first_line(error)) from error
    try:
        described = json.loads(metadata.get(b"huggingface", b"{}"))
        features = (described.get("info") or {}).get("features") or {}
    except (ValueError, AttributeError):  # another program's words under the same key
        return {}
    return names_in(features)


def names_in(features: Any) -> dict[str, list[str]]:
    """Return the names of the classes in the features of a data set, as JSON data of the library datasets."""
    if not isinstance(features, dict):
        return {}
    return {
        column: list(map(str, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and feature.get("names")
    }
