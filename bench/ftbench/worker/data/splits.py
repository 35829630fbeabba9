"""Splits: the rows of one split, from files or from a hub data set, in one form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from datasets import ClassLabel, Dataset

from ftbench.base.errors import WorkloadError
from ftbench.plan.sources import DATA_SUFFIXES
from ftbench.worker.data.arrow_files import class_names, read_arrow, read_parquet
from ftbench.worker.data.columns import (
    FILE,
    ROW,
    combined,
    of_arrow,
    require_column,
    with_numbers,
)
from ftbench.worker.data.content import WHERE, Reading
from ftbench.worker.data.delimited import read_delimited
from ftbench.worker.data.json_files import read_json

# Formats without types, and formats of text.
UNTYPED = (".csv", ".tsv")
TEXT = (*UNTYPED, ".json", ".jsonl", ".txt")
# Settings whose columns are texts, also if each is written as a number.
_OF_TEXTS = frozenset({"workload.text_column", "workload.completion_column"})


class Split(Protocol):
    """One split, which is read when it is asked for."""

    @property
    def files(self) -> Sequence[Path]:
        """Return the files of the split; none if the library datasets has read them."""
        ...

    def read(self, columns: Mapping[str, str], reading: Reading) -> pa.Table:
        """Return the named columns with the row's number and the file; `columns` gives each one's setting."""
        ...

    def names(self, column: str) -> list[str] | None:
        """Return the data set's own names of the classes in a column; None if it has none."""
        ...


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """A split of one or more files."""

    files: Sequence[Path]
    described: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)

    def read(self, columns: Mapping[str, str], reading: Reading) -> pa.Table:
        """Return the rows of all files; a column of CSV files becomes numbers if all of its values are."""
        tables = [_read_file(file, columns, reading) for file in self.files]
        table = combined(tables, [file.name for file in self.files])
        if all(kind_of(file) in UNTYPED for file in self.files):
            for place, (column, setting) in enumerate(columns.items()):
                if setting not in _OF_TEXTS:
                    flags = "where" in setting
                    values = with_numbers(table[column], flags=flags)
                    table = table.set_column(place, column, values)
        return table

    def names(self, column: str) -> list[str] | None:
        """Return the names that README.md or the first Parquet file has for the classes in a column."""
        if column in self.described:
            return list(self.described[column])
        parquet = (file for file in self.files if kind_of(file) == ".parquet")
        first = next(parquet, None)
        return None if first is None else class_names(first).get(column)


@dataclasses.dataclass(frozen=True)
class HubSplit:
    """A split of a hub data set, prepared by the library datasets."""

    rows: Dataset
    name: str
    files: Sequence[Path] = ()

    def read(self, columns: Mapping[str, str], reading: Reading) -> pa.Table:
        """Return the rows of the split."""
        for column, setting in columns.items():
            require_column(column, setting, self.rows.column_names, self.name)
        table = self.rows.with_format("arrow").select_columns(list(columns))[:]
        where = Path(self.name)
        table = pa.table({name: of_arrow(table[name], name, where) for name in columns})
        rows = pa.array(range(1, len(table) + 1), pa.int64())
        files = pa.repeat(pa.scalar(self.name), len(table))
        return table.append_column(ROW, rows).append_column(FILE, files)

    def names(self, column: str) -> list[str] | None:
        """Return the names of a column of class labels."""
        feature = self.rows.features.get(column)
        feature = getattr(feature, "feature", feature)  # of a list
        return list(feature.names) if isinstance(feature, ClassLabel) else None


def kind_of(file: Path) -> str:
    """Return the suffix that says the format of a file: lower case, without `.gz`."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _read_file(file: Path, columns: Mapping[str, str], reading: Reading) -> pa.Table:
    kind = kind_of(file)
    if kind in UNTYPED:
        return read_delimited(file, columns, reading)
    if kind in (".json", ".jsonl"):
        return read_json(file, columns, reading)
    if kind == ".parquet":
        return read_parquet(file, columns)
    if kind == ".arrow":
        return read_arrow(file, columns)
    raise WorkloadError(
        "unsupported kind of file",
        where=WHERE,
        got=file.name,
        expected=f"a file ending in {', '.join(DATA_SUFFIXES)}, with or without .gz",
    )
