"""Headers: the names of the columns of a split, before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftbench.worker.data.arrow_files import arrow_names, parquet_names
from ftbench.worker.data.content import Reading
from ftbench.worker.data.delimited import read_header
from ftbench.worker.data.json_files import json_names
from ftbench.worker.data.label_folders import LabelFolders
from ftbench.worker.data.splits import UNTYPED, HubSplit, Split, kind_of


def column_names(split: Split, reading: Reading) -> list[str]:
    """Return the names of the columns that every file of a split has, in the order of the first file.

    A name that is there twice in one file is returned twice. Raises WorkloadError if a file cannot be read.
    """
    if isinstance(split, LabelFolders):
        return list(LabelFolders.columns)
    if isinstance(split, HubSplit):
        return list(split.rows.column_names)
    first, *others = [_names_in(file, reading) for file in split.files]
    return [name for name in first if all(name in names for names in others)]


def _names_in(file: Path, reading: Reading) -> Sequence[str]:
    kind = kind_of(file)
    if kind in UNTYPED:
        return read_header(file, reading)
    if kind in (".json", ".jsonl"):
        return json_names(file, reading)
    return parquet_names(file) if kind == ".parquet" else arrow_names(file)
