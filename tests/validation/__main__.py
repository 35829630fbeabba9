"""Predict published cells and compare: `python -m tests.validation CELLS.csv --configs DIR --out DIR`.

CELLS.csv has a row a cell: model, optimizer, batch, gpu, total_gpu_bytes, zero_grad_mode; where it
also has measured values (and other predictors' estimates), an error table is written beside the
predictions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ftbench.base.errors import FtbenchError
from tests.validation.errors import error_table
from tests.validation.predictions import predict_rows


def main(arguments: Sequence[str]) -> int:
    """Write predictions.csv (and errors.md) for the rows of a file; return the exit code."""
    parser = argparse.ArgumentParser("nox -s validate --", description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--configs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    cells = pd.read_csv(options.cells, keep_default_na=False)
    try:
        predictions = predict_rows(cells, options.configs)
    except FtbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    predictions.to_csv(options.out / "predictions.csv", index=False)
    if {"measured_bytes", "oom"} <= set(cells):
        table = error_table(predictions)
        (options.out / "errors.md").write_text(table)
        print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
