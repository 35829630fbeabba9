"""Strata: groups of rows that are each split between training and evaluation in the same ratio."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ftbench.worker.tasks.protocol import Array


def of_values(values: pa.ChunkedArray) -> list[Array]:
    """Return the row numbers of each value, in the order of the rows."""
    plain = np.asarray(values.to_pylist())
    return [np.flatnonzero(plain == value) for value in np.unique(plain)]


def whole(examples: pa.Table) -> list[Array]:
    """Return all row numbers as one group."""
    return [np.arange(len(examples))]
