"""The ranks table: one row per rank of every record of several processes: its memory, its steps, its waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ftbench.records.figures import READINGS
from ftbench.records.measurement import Measurement
from ftbench.records.record import Record

PREDICTED = "predicted_tensors_bytes"
COLUMNS = (
    "cell_id",
    "replicate",
    "repeat",
    "num_processes",
    "rank",
    "device",
    "threads",
    "step_median_s",
    "samples_per_s",
    "collectives_s",
    "exposed_s",
    *(figure.reading for figure in READINGS),
    PREDICTED,
)


def ranks_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per rank of each finished record of several processes; empty without such a record.

    `device` is a card's UUID, or `cpu`. Seconds are per step: `collectives_s` and `exposed_s` those of
    `Collectives`. Memory in bytes, each reading under its name; `predicted_tensors_bytes` stands beside
    `peak_cpu_tensors_bytes`.
    """
    rows = [row for record in records for row in _rows(record, record.measurement)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(record: Record, measured: Measurement | None) -> Iterator[dict[str, Any]]:
    if measured is None or len(measured.ranks) == 1:
        return
    predicted = record.predicted.rank_tensors_bytes if record.predicted else ()
    for rank in measured.ranks:
        yield {
            "cell_id": record.cell_id,
            "replicate": record.replicate,
            "repeat": record.repeat,
            "num_processes": len(measured.ranks),
            "rank": rank.rank,
            "device": rank.device.uuid or rank.device.kind,
            "threads": rank.device.threads,
            "step_median_s": rank.steps and rank.steps.median_s,
            "samples_per_s": rank.steps and rank.steps.samples_per_s,
            "collectives_s": rank.collectives and rank.collectives.seconds,
            "exposed_s": rank.collectives and rank.collectives.exposed_s,
            **{one.reading: rank.memory.reading(one.reading) for one in READINGS},
            PREDICTED: predicted[rank.rank] if rank.rank < len(predicted) else None,
        }
