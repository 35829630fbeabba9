"""CSV: a table as text that a spreadsheet opens without running any of it."""

from __future__ import annotations

import pandas as pd

from ftbench.base.text import no_formula, printable


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV; texts that begin like a formula have an apostrophe in front."""

    def guarded(value: object) -> object:
        return no_formula(printable(value)) if isinstance(value, str) else value

    safe = table.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(guarded)
    return safe.rename(columns=guarded).to_csv(index=False)
