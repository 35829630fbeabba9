"""Divergence: a loss that is not a finite number from some step on, or that ends far above its beginning."""

from __future__ import annotations

import math

import pandas as pd

from ftbench.records.measurement import RunWarning

# The loss of the last steps is compared with that of the first, and with that of a model that ignores the text:
# above so many times the larger of both, the training diverged. Single batches reach twice of it by chance.
ROSE = 3.0
_SHARE, _FEWEST = 0.1, 3


def first_not_finite(table: pd.DataFrame) -> int | None:
    """Return the first step, counted from 1, whose loss is not a finite number; None if all are."""
    bad = table.loc[~table["loss"].map(math.isfinite), "step"]
    return int(bad.iloc[0]) if len(bad) else None


def divergence_warnings(table: pd.DataFrame, guess_loss: float) -> list[RunWarning]:
    """Return a warning if the training diverged; `guess_loss` is the loss of a model that ignores the text."""
    step = first_not_finite(table)
    if step is not None:
        message = f"the loss is not a finite number from step {step} on: the training diverged"
        return [RunWarning(name="diverged", message=message, value=step)]
    losses = table["loss"]
    count = max(_FEWEST, math.ceil(_SHARE * len(losses)))
    first, last = float(losses.head(count).median()), float(losses.tail(count).median())
    limit = ROSE * max(first, guess_loss)
    if last <= limit:
        return []
    message = (
        f"the loss rose from {first:.3g} (median of the first {count} steps) to {last:.3g} (of the last {count}):"
        " the training diverged"
    )
    return [RunWarning(name="diverged", message=message, value=last, threshold=limit)]
