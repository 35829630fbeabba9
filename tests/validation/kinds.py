"""Kinds of files with published cells, told apart by their columns. Imports nothing: the session asks it, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Kind = Literal["fms", "published", "tables", "loops"]
# A column that only files of a kind have: of fms-acceleration's runs, of tables of many sources, and of tables of
# transformers' attention kernels. Files of xMem's loops have none of them.
_COLUMNS: dict[str, Kind] = {
    "framework_config": "fms",
    "micro_batch": "published",
    "attention": "tables",
}


def kind_of(columns: Iterable[str]) -> Kind:
    """Return the kind of a file with these columns."""
    present = set(columns)
    return next((kind for column, kind in _COLUMNS.items() if column in present), "loops")
