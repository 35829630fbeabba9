"""The labels of a tokenised pool as one array, for losses and scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ftbench.worker.tasks.protocol import IGNORED, Array


def labels_of(pool: Dataset) -> Array:
    """Return the labels of a tokenised pool: one per example; or one row per example, filled up with `IGNORED`."""
    labels = pool.select_columns("labels").with_format("arrow")[:]["labels"].combine_chunks()
    if not pa.types.is_list(labels.type) and not pa.types.is_large_list(labels.type):
        return labels.to_numpy(zero_copy_only=False)
    counts = pc.list_value_length(labels).to_numpy()
    filled = np.full((len(counts), int(counts.max(initial=0))), IGNORED, dtype=np.int64)
    filled[np.arange(filled.shape[1]) < counts[:, None]] = labels.flatten().to_numpy()
    return filled
