"""Tokenised pools: written once per content, tokenizer, length and padding, and read by each cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError
from ftbench.worker.tasks.protocol import IGNORED, Array, Task

_TOKENISED_BY = ("datasets", "tokenizers", "transformers")
# Increased whenever files are read in another way, so that texts read by older code are not taken from the cache.
_READER_VERSION = 2


def tokenise(
    pool: Dataset,
    count: int,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    padding: str,
    evaluation: bool = False,
    identity: dict[str, Any],
) -> Path:
    """Return the Arrow file of the first `count` examples of a pool, tokenised.

    The file is in the cache of the library datasets under a hash of `identity`, which holds the revisions of data
    and tokenizer, and the other arguments. It is made only if it does not exist. With padding "longest", examples
    keep their length and the collator pads each batch. Raises WorkloadError if the cache cannot be written.
    """
    made_by = {name: version(name) for name in _TOKENISED_BY}
    key = {
        **identity,
        "reader": _READER_VERSION,
        "count": count,
        "max_length": max_length,
        "padding": padding,
        **made_by,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    file = Path(datasets.config.HF_DATASETS_CACHE) / "ftbench" / f"{digest}.arrow"

    def encode(batch: Mapping[str, Sequence[str]]) -> Any:
        return task.encode(
            tokenizer,
            batch,
            max_length=max_length,
            pad=padding == "max_length",
            evaluation=evaluation,
        )

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pool.select(range(count)).map(
            encode,
            batched=True,
            remove_columns=[name for name in pool.column_names if name != "labels"],
            cache_file_name=str(file),
            new_fingerprint=digest,
            load_from_cache_file=True,
        )
    except OSError as error:
        raise WorkloadError(
            f"tokenised examples cannot be written: {error}",
            where="HF_DATASETS_CACHE",
            got=str(file.parent),
            expected="a folder that can be written, with room for them",
        ) from error
    return file


def labels_of(pool: Dataset) -> Array:
    """Return the labels of a tokenised pool: one per example; or one row per example, filled up with `IGNORED`."""
    labels = pool.select_columns("labels").with_format("arrow")[:]["labels"].combine_chunks()
    if not pa.types.is_list(labels.type) and not pa.types.is_large_list(labels.type):
        return labels.to_numpy(zero_copy_only=False)
    counts = pc.list_value_length(labels).to_numpy()
    filled = np.full((len(counts), int(counts.max(initial=0))), IGNORED, dtype=np.int64)
    filled[np.arange(filled.shape[1]) < counts[:, None]] = labels.flatten().to_numpy()
    return filled


def read_tokenised(file: str, count: int) -> Dataset:
    """Return the first `count` examples of a tokenised pool, in torch format."""
    return Dataset.from_file(file).select(range(count)).with_format("torch")
