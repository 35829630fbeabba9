"""Jobs: the distinct runs of a file's rows, predicted two at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import pandas as pd

from tests.validation.columns import Figures, with_columns

WORKERS = 2
Job = TypeVar("Job", bound=Hashable)


def with_predictions(
    rows: pd.DataFrame,
    jobs: Sequence[Job | None],
    reasons: Sequence[str | None],
    predict: Callable[[Job], Figures],
) -> pd.DataFrame:
    """Return the rows with their predicted columns; a job that rows share is done once, and None has its reason.

    `predict` runs in processes of its own, so it is a function of a module.
    """
    distinct = list(dict.fromkeys(job for job in jobs if job is not None))
    found: dict[Job, Figures] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        for job, figures in zip(distinct, pool.map(predict, distinct), strict=True):
            found[job] = figures
            print(f"{len(found)}/{len(distinct)} rows of their own", file=sys.stderr)
    predicted: list[Figures] = [
        {"not_predicted": reason} if job is None else found[job]
        for job, reason in zip(jobs, reasons, strict=True)
    ]
    return with_columns(rows, predicted)
