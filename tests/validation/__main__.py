"""Predict published cells and compare: `python -m tests.validation CELLS.csv [--configs DIR] --out DIR`.

CELLS.csv has one row per cell, of one of two kinds: training loops (model, optimizer, batch, gpu, total_gpu_bytes,
zero_grad_mode; `--configs` has the models), or fine-tunes by the Trainer (`tests/validation/fine_tunes.py`). If it
also has measured values, an error table is written beside the predictions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ftbench.base.errors import FtbenchError
from tests.validation.errors import error_table
from tests.validation.fine_tune_errors import MEASURED, OUTCOME, fine_tune_table
from tests.validation.predictions import predict_rows

# Columns that only files of fine-tunes have.
FINE_TUNES = frozenset({"framework_config", "per_device_batch", "max_seq_len"})


def main(arguments: Sequence[str]) -> int:
    """Write predictions.csv (and errors.md) for the rows of a file; return the exit code."""
    parser = argparse.ArgumentParser("nox -s validate --", description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    cells = pd.read_csv(options.cells, keep_default_na=False)
    of_trainer = set(cells) >= FINE_TUNES
    if not of_trainer and options.configs is None:
        parser.error("--configs is required for training loops")
    try:
        predictions, table = _fine_tunes(cells) if of_trainer else _loops(cells, options.configs)
    except FtbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    predictions.to_csv(options.out / "predictions.csv", index=False)
    if table is not None:
        (options.out / "errors.md").write_text(table)
        print(table)
    return 0


def _loops(cells: pd.DataFrame, configs: Path) -> tuple[pd.DataFrame, str | None]:
    """Return the predictions of training loops, and the table of errors if measured values are there."""
    predictions = predict_rows(cells, configs)
    measured = {"measured_bytes", "oom"} <= set(cells)
    return predictions, error_table(predictions) if measured else None


def _fine_tunes(cells: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """Return the same of fine-tunes by the Trainer, under the installed transformers."""
    from tests.validation import (
        fine_tunes,  # the Trainer needs a newer transformers than the loops were measured with
    )

    predictions = fine_tunes.predict_rows(cells)
    measured = {MEASURED, OUTCOME} <= set(cells)
    return predictions, fine_tune_table(predictions) if measured else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
