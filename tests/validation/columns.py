"""Columns: the predicted columns that every kind of file gets, from one simulation."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ftbench.prediction.simulate.simulation import Simulated
from ftbench.prediction.trace.events import Trace

FIGURES = ("allocated", "reserved")
COLUMNS = (
    *(f"predicted_{name}_{end}bytes" for name in FIGURES for end in ("", "low_", "high_")),
    "predicted_oom",
    "seconds",
    "not_predicted",
)
# c10/cuda/CUDACachingAllocator.cpp, `should_split`: a block of the large pool (requests above 1 MiB) is handed out
# whole if at most 1 MiB (kSmallSize) would be left of it.
_KEPT_WHOLE = 2**20

Figures = dict[str, object]


def columns(simulated: Simulated, unsplit: int = 0) -> Figures:
    """Return a simulation's figures by column.

    `unsplit` is what blocks of loaded weights can have beyond their request: the upper ends are as much above the
    simulated ones, and allocated memory can be as little as was asked for.
    """
    figures: Figures = {"predicted_oom": int(simulated.first.out_of_memory)}
    for name in FIGURES:
        low, high = simulated.interval(f"peak_{name}_bytes")
        figures[f"predicted_{name}_bytes"] = getattr(simulated.first, f"peak_{name}_bytes")
        figures[f"predicted_{name}_low_bytes"] = low
        figures[f"predicted_{name}_high_bytes"] = high + unsplit
    if unsplit:
        least, _ = simulated.interval("peak_requested_bytes")
        figures["predicted_allocated_low_bytes"] = least
    return figures


def unsplit_bytes(trace: Trace) -> int:
    """Return the most that blocks of weights can have beyond their request, in bytes.

    The weights of a published run came from a checkpoint. The trace does not have its loading, which decides how
    large the free blocks were that the weights were put in: each can be up to 1 MiB larger.
    """
    weights = {block for block, role in trace.roles().items() if role == "parameters"}
    sizes = zip(trace.block.tolist(), trace.nbytes.tolist(), strict=True)
    return _KEPT_WHOLE * len({block for block, size in sizes if block in weights and size > 2**20})


def with_columns(rows: pd.DataFrame, predicted: Iterable[Figures]) -> pd.DataFrame:
    """Return the rows with their predicted columns after their own."""
    added = pd.DataFrame(list(predicted), index=rows.index, columns=list(COLUMNS), dtype=object)
    return pd.concat([rows, added], axis=1)
