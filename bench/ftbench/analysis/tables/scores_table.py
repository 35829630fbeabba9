"""The scores table: every score of every record, with its interval and the score of guessing, one row each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ftbench.records.invariants import untrusted_figures
from ftbench.records.record import Record

COLUMNS = (
    "cell_id",
    "replicate",
    "repeat",
    "seed",
    "score",
    "value",
    "standard_error",
    "low",
    "high",
    "guess",
    "higher_is_better",
    "untrusted",
)


def scores_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per record and score.

    `low` and `high` are the ends of the 95 % interval over evaluation examples; `guess` is the score of a
    model that does not read the text. A score that is untrusted keeps its number here, beside the reason.
    """
    rows = [row for record in records for row in _rows(record)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    if record.measurement is None:
        return
    untrusted = untrusted_figures(record)
    for score in record.measurement.scores:
        named = score.model_dump()
        yield {
            "cell_id": record.cell_id,
            "replicate": record.replicate,
            "repeat": record.repeat,
            "seed": record.seed,
            "score": named.pop("name"),
            **named,
            "untrusted": untrusted.get(f"scores.{score.name}", ""),
        }
