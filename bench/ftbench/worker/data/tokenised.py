"""Tokenised pools: written once per content, tokenizer, length and padding, and read by each cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError
from ftbench.plan.profile import Packing, Padding
from ftbench.worker.tasks.packing import Row, blocks
from ftbench.worker.tasks.protocol import Task

_TOKENISED_BY = ("datasets", "tokenizers", "transformers")
# Increased whenever files are read in another way, so that texts read by older code are not taken from the cache.
_READER_VERSION = 2
# A length that no text has, and the number of texts that are read at a time.
_WHOLE, _READ = 10**9, 1000


def tokenise(
    pool: Dataset,
    count: int,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    padding: Padding,
    packing: Packing = "none",
    evaluation: bool = False,
    identity: dict[str, Any],
) -> Path:
    """Return the Arrow file of the first `count` training or evaluation examples of a pool, tokenised.

    The file is in the cache of the library datasets under a hash of `identity`, which holds the revisions of data
    and tokenizer, and the other arguments. It is made only if it does not exist. With padding "longest" or packing
    "padding-free", examples keep their length, and the collator makes each batch; with packing "concatenate", each
    example is a row of `max_length` tokens of the joined texts. Evaluation examples are never packed, so that their
    scores can be compared. Raises WorkloadError if the cache cannot be written, or if the texts are too few.
    """
    packing = "none" if evaluation else packing
    made_by = {name: version(name) for name in _TOKENISED_BY}
    key = {
        **identity,
        "reader": _READER_VERSION,
        "count": count,
        "max_length": max_length,
        "padding": padding,
        **({} if packing == "none" else {"packing": packing}),
        **made_by,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    file = Path(datasets.config.HF_DATASETS_CACHE) / "ftbench" / f"{digest}.arrow"

    def encode(batch: Mapping[str, Sequence[Any]]) -> Any:
        return task.encode(
            tokenizer,
            batch,
            max_length=_WHOLE if packing == "concatenate" else max_length,
            pad=padding == "max_length" and packing == "none",
            evaluation=evaluation,
        )

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if packing == "concatenate":
            _write_blocks(file, blocks(map(encode, pool.iter(_READ)), max_length), count)
        else:
            _map(file, pool.select(range(count)), encode, digest)
    except OSError as error:
        raise WorkloadError(
            f"tokenised examples cannot be written: {error}",
            where="HF_DATASETS_CACHE",
            got=str(file.parent),
            expected="a folder that can be written, with room for them",
        ) from error
    return file


def _map(file: Path, pool: Dataset, encode: Callable[..., Any], digest: str) -> None:
    pool.map(
        encode,
        batched=True,
        remove_columns=[name for name in pool.column_names if name != "labels"],
        cache_file_name=str(file),
        new_fingerprint=digest,
        load_from_cache_file=True,
    )


def _write_blocks(file: Path, rows: Iterable[Row], count: int) -> None:
    """Write the first `count` rows; raises WorkloadError if there are fewer."""
    if file.is_file():
        return
    beside = file.with_suffix(f".{os.getpid()}")
    try:
        with ArrowWriter(path=str(beside)) as writer:
            found = 0
            for row in itertools.islice(rows, count):
                writer.write(row)
                found += 1
            if found < count:
                raise WorkloadError(
                    "the texts of the training pool, joined, do not fill as many rows",
                    where="grid.train_size",
                    got=str(count),
                    expected=f"at most {found}",
                    hint="rows of fewer tokens (max_length), or packing = 'none'",
                )
            writer.finalize()
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def read_tokenised(file: str, count: int) -> Dataset:
    """Return the first `count` examples of a tokenised pool, in torch format."""
    return Dataset.from_file(file).select(range(count)).with_format("torch")
