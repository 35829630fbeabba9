"""Predict published step times and compare: `python -m tests.time_validation CELLS.csv --out DIR`.

CELLS.csv has a row per published step: source, gpu, workload, batch, precision, era, and step_s where it is known.
DIR gets predictions.csv: the same rows with the predicted seconds of a step, their interval, the roofline's value,
and the reason if a row is not predicted. With step_s, the errors are printed by card, precision and source, also of
constants that were fitted without the card or the source.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tests.time_validation.predictions import errors, predict_rows


def main(arguments: Sequence[str]) -> int:
    """Write predictions.csv, and errors.txt if seconds are known; return the exit code."""
    parser = argparse.ArgumentParser("nox -s validate-time --", description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    cells = pd.read_csv(options.cells)
    missing = {"gpu", "workload", "batch", "precision"} - set(cells)
    if missing:
        parser.error(f"{options.cells} has no column {', '.join(sorted(missing))}")
    predicted, rows = predict_rows(cells)
    options.out.mkdir(parents=True, exist_ok=True)
    predicted.to_csv(options.out / "predictions.csv", index=False)
    print(f"{len(rows)} of {len(cells)} rows predicted: {options.out / 'predictions.csv'}")
    if rows and {"step_s", "source"} <= set(cells):
        text = "\n".join(errors(cells, predicted, rows))
        (options.out / "errors.txt").write_text(text + "\n")
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
