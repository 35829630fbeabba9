"""Predict published cells and compare: `python -m tests.validation CELLS.csv [--configs DIR] --out DIR`.

CELLS.csv has a row per cell, in one of two forms, told apart by its columns. With `framework_config` it is a file
of fms-acceleration's runs (`tests.validation.fms`); else it has model, optimizer, batch, gpu, total_gpu_bytes and
zero_grad_mode, and --configs is the folder of the models' configs. If it also has measured values (and other
predictors' estimates), an error table is written beside the predictions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ftbench.base.errors import FtbenchError
from tests.validation import errors, predictions
from tests.validation.fms import table as fms_table

FMS_COLUMN = "framework_config"


def main(arguments: Sequence[str]) -> int:
    """Write predictions.csv (and errors.md) for the rows of a file; return the exit code."""
    parser = argparse.ArgumentParser("nox -s validate --", description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    cells = pd.read_csv(options.cells, keep_default_na=False)
    if FMS_COLUMN not in cells and options.configs is None:
        parser.error(f"--configs is needed, since {options.cells} has no column {FMS_COLUMN}")
    try:
        predicted, table = _predicted(cells, options.cells.name, options.configs)
    except FtbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    predicted.to_csv(options.out / "predictions.csv", index=False)
    if table:
        (options.out / "errors.md").write_text(table)
        print(table)
    return 0


def _predicted(
    cells: pd.DataFrame, file: str, configs: Path | None
) -> tuple[pd.DataFrame, str | None]:
    """Return the rows with their predictions, and the table of errors if there are measured values."""
    if FMS_COLUMN in cells:
        # The Trainer's cells need a newer transformers than the loops were measured with.
        from tests.validation.fms import predictions as fms_predictions

        rows = fms_predictions.predict_rows(cells)
        measured = set(fms_table.MEASURED) <= set(cells)
        return rows, fms_table.error_table(rows, file) if measured else None
    assert configs is not None
    rows = predictions.predict_rows(cells, configs)
    return rows, errors.error_table(rows) if {"measured_bytes", "oom"} <= set(cells) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
