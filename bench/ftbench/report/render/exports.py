"""Exports: a report's tables for other programs: Parquet, JSON, LaTeX.

JSON schema history
    1  2026-11  first version
    2  2026-11  fits: `fixed` was `held`, `weak` is a list, `source` is a name; the unit `example` was `document`
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ftbench import __version__
from ftbench.analysis.fits.reasons import Reason, Weakness
from ftbench.base.files import write_atomically
from ftbench.records.figures import BY_NAME
from ftbench.report.elements.reasons import reason_words, weakness_words
from ftbench.report.render import latex

if TYPE_CHECKING:
    from ftbench.report.document import Document

SCHEMA_VERSION = 2
# Units of columns that are no figure of a measurement: by name, or the end of it.
_UNITS = (
    ("_bytes", "byte"),
    ("_j", "J"),
    ("_s", "s"),
    ("max_length", "token"),
    ("per_device_train_batch_size", "example"),
    ("train_size", "example"),
)
# Units of what is counted one by one: a table of cells has floats for them if some are absent.
_WHOLE = ("byte", "step")


def write_parquet(document: Document, folder: Path) -> list[Path]:
    """Write the tables of cells, of memory and of scores: types kept, each column's unit in its metadata."""
    tables = {
        "cells.parquet": document.cells,
        "ledger.parquet": document.ledger,
        "scores.parquet": document.scores,
    }
    for name, table in tables.items():
        write_atomically(folder / name, parquet(table))
    return [folder / name for name in tables]


def write_json(document: Document, folder: Path) -> list[Path]:
    """Write `report.json`: the profile, the environments, the cells and the fits in one document."""
    file = folder / f"{document.stem}.json"
    write_atomically(file, dumped(report_data(document)))
    return [file]


def write_latex(document: Document, folder: Path) -> list[Path]:
    """Write `report.tex`, which compiles as it is, and the tables that it reads."""
    tables, whole = folder / f"{document.stem}-tables.tex", folder / f"{document.stem}.tex"
    write_atomically(tables, latex.render_tables(document.sections))
    write_atomically(whole, latex.render_document(document.title, document.sections, tables.stem))
    return [whole, tables]


def unit_of(column: str) -> str | None:
    """Return the unit of a column; None if it is no figure."""
    name = column
    for suffix in ("_ratio", "_verdict"):
        if name.removesuffix("_low").removesuffix("_high").endswith(suffix):
            return None
    for end in ("_a", "_b"):
        name = name.removesuffix(end)
    if name in BY_NAME:
        return BY_NAME[name].unit or None
    return next((unit for end, unit in _UNITS if name == end or name.endswith(end)), None)


def parquet(table: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file; whole numbers stay whole even if some are absent."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(typed(table), preserve_index=False)
    fields = [
        field.with_metadata({"unit": unit}) if (unit := unit_of(field.name)) else field
        for field in arrow.schema
    ]
    metadata = {**(arrow.schema.metadata or {}), b"ftbench": __version__.encode()}
    buffer = io.BytesIO()
    pq.write_table(arrow.cast(pa.schema(fields, metadata=metadata)), buffer)
    return buffer.getvalue()


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have types that hold absence: whole numbers, numbers, texts."""
    return table.assign(**{name: _typed(name, table[name]) for name in table.columns})


def _typed(name: str, values: pd.Series[Any]) -> pd.Series[Any]:
    there = values.dropna().infer_objects()
    unit = unit_of(name)
    if not len(there):
        return values.astype("Int64" if unit in _WHOLE else "float64" if unit else "string")
    if pd.api.types.is_bool_dtype(there):
        return values.astype("boolean")
    if not pd.api.types.is_numeric_dtype(there):
        return values.map(str, na_action="ignore").astype("string")
    whole = unit in _WHOLE and bool((there.astype(float) % 1 == 0).all())
    return values.astype("Int64" if whole or pd.api.types.is_integer_dtype(there) else "float64")


def report_data(document: Document) -> dict[str, Any]:
    """Return a report as JSON data; absent values are None."""
    profile = document.profile
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "report",
        "ftbench": __version__,
        "title": document.title,
        "profile": None if profile is None else profile.model_dump(mode="json"),
        "environments": {
            name: one.model_dump(mode="json") for name, one in document.environments.items()
        },
        "units": units(document.cells),
        "cells": rows(document.cells),
        "scores": rows(document.scores),
        "fits": [plain(group) for group in document.groups],
        "learning_curves": [plain(curve) for curve in document.curves],
    }


def units(table: pd.DataFrame) -> dict[str, str]:
    """Return the unit of every column that has one."""
    return {name: unit for name in table.columns if (unit := unit_of(name))}


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON data."""
    found: list[dict[str, Any]] = plain(typed(table).astype(object).to_dict("records"))
    return found


def plain(value: Any) -> Any:
    """Return a value as JSON data: dataclasses by field, absent values and NaN as None.

    Functions (a fit's `predict`) are left out; reasons are in words.
    """
    if isinstance(value, Reason):
        return reason_words(value)
    if isinstance(value, Weakness):
        return weakness_words(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return {name: plain(one) for name, one in fields.items() if not callable(one)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def dumped(data: Mapping[str, Any]) -> str:
    """Return JSON data as text, strictly: a NaN is a bug and raises ValueError."""
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
