"""Predict published cells and compare: `python -m tests.validation FILE.csv [--configs DIR] --out DIR`.

FILE.csv has a row per cell. Its columns tell which kind it is (`tests.validation.kinds`). If it also has measured
values, a table of errors is written beside the predictions and printed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ftbench.base.errors import FtbenchError
from tests.validation import scores
from tests.validation.kinds import kind_of


def main(arguments: Sequence[str]) -> int:
    """Write predictions.csv (and errors.md) for the rows of a file; return the exit code."""
    parser = argparse.ArgumentParser("nox -s validate --", description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    cells = pd.read_csv(options.cells, keep_default_na=False)
    kind = kind_of(cells)
    if kind == "loops" and options.configs is None:
        parser.error(f"--configs is needed for the columns of {options.cells}")
    try:
        predicted, table = _predicted(kind, cells, options.cells.name, options.configs)
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
    kind: str, cells: pd.DataFrame, file: str, configs: Path | None
) -> tuple[pd.DataFrame, str | None]:
    """Return the rows with their predictions, and the table of errors if there are measured values.

    Only the kind's own modules are imported: kinds need different versions of transformers.
    """
    if kind == "loops":
        from tests.validation import errors, predictions

        assert configs is not None
        rows = predictions.predict_rows(cells, configs)
        return rows, errors.error_table(rows) if {"measured_bytes", "oom"} <= set(cells) else None
    module = importlib.import_module(f"tests.validation.{kind}.predictions")
    rows, measured = module.predict_rows(cells), module.measured(cells)
    return rows, None if measured is None else scores.error_table(rows, measured, file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
