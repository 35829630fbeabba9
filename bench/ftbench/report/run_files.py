"""Run files: the files of a run directory, beside its records, that figures are drawn from.

None of them is needed: if one is absent or cannot be read, its figure is left out.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from ftbench.base.files import MAX_JSON_BYTES
from ftbench.records.prediction import LargestBatch
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory

# What `ftbench predict PROFILE --gpu NAME --json` printed, if somebody kept it here.
PREDICTIONS = "predictions.json"
_COLUMNS = {"t_s", "phase", "pss_bytes", "process_bytes", "device_bytes"}


def read_samples(directory: RunDirectory, record: Record) -> pd.DataFrame | None:
    """Return the samples of a record's memory; None if there are none that can be read."""
    file = directory.file("samples", record.file_name, ".parquet")
    if file.is_symlink() or not file.is_file():
        return None
    try:
        samples = pd.read_parquet(file)
    except (OSError, ValueError):
        return None
    return samples if set(samples.columns) >= _COLUMNS and len(samples) else None


def read_largest(file: Path) -> tuple[LargestBatch, ...]:
    """Return the largest batch of each card and length in a file of predictions; empty without one."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_JSON_BYTES:
        return ()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["largest_batch"]
        return tuple(LargestBatch.model_validate(one) for one in found)
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return ()
