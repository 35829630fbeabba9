"""Data: load, check, split into two pools, tokenise once per length, read back.

Pools are shuffled with `shuffle_seed` before a subset is selected
(`shuffle(seed=42).select(range(n))`), so a smaller training subset is the beginning of a larger one.
"""

from __future__ import annotations

import dataclasses
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
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from ftbench.base.errors import WorkloadError, nearest_name
from ftbench.base.frozen import Scalar
from ftbench.plan.sources import DATA_SUFFIXES, DataSource
from ftbench.worker.tasks.protocol import Task
from ftbench.worker.tasks.tasks import TASKS
from ftbench.worker.tasks.text import LABEL

# The share of each class, or group of similar labels, that becomes the evaluation pool if there is only one split.
HELD_OUT = 0.2
_BUILDERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_TOKENISED_BY = ("datasets", "tokenizers", "transformers")


@dataclasses.dataclass(frozen=True)
class Pools:
    """Shuffled training and evaluation pools with texts and `labels`, and the names of the classes."""

    train: Dataset
    evaluation: Dataset
    labels: tuple[str, ...]
    eval_split: str


def load_pools(source: DataSource) -> Pools:
    """Return the two pools of a data set; raises WorkloadError if it does not fit the profile."""
    task = TASKS[source.task]
    splits = _load_splits(source)
    rows = _split(splits, source.train_split, "workload.train_split")
    examples = _examples(rows, source, task)
    eval_split = _eval_split_name(source, list(splits))
    if eval_split == "from-train":
        train, held_out = _hold_out(examples, task)
    else:
        train = examples
        held_out = _examples(_split(splits, eval_split, "workload.eval_split"), source, task)
    labels = task.read_labels(
        train[LABEL],
        held_out[LABEL],
        names=_class_names(rows, source),
        column=source.label_column,
    )
    return Pools(
        train=_pool(train, labels.train).shuffle(seed=source.shuffle_seed),
        evaluation=_pool(held_out, labels.evaluation).shuffle(seed=source.shuffle_seed),
        labels=labels.names,
        eval_split=eval_split,
    )


def _pool(table: pa.Table, labels: pa.Array) -> Dataset:
    """Return a table of texts with the column `labels` instead of `label`."""
    return Dataset(table.drop_columns([LABEL]).append_column("labels", labels))


def _load_splits(source: DataSource) -> DatasetDict:
    """Return all splits of the source; raises WorkloadError if they cannot be loaded."""
    location = source.source.location
    try:
        if source.source.kind == "hub":
            return load_dataset(location, source.config, revision=source.source.revision)
        path = Path(location)
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = load_from_disk(location)
        elif path.is_dir():
            loaded = load_dataset(location)
        else:
            loaded = load_dataset(_builder(path), data_files=location)
    except WorkloadError:
        raise
    except Exception as error:  # datasets raises its own, pyarrow's, OSError, ValueError, ...
        raise WorkloadError(
            f"the data set cannot be loaded: {error}",
            where="workload.dataset",
            got=source.source.reference,
        ) from error
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({source.train_split: loaded})


def _builder(path: Path) -> str:
    """Return the name of the datasets builder that reads a file."""
    if path.suffix not in _BUILDERS:
        raise WorkloadError(
            "unsupported kind of file",
            where="workload.dataset",
            got=path.name,
            expected=f"a file ending in {', '.join(DATA_SUFFIXES)}",
        )
    return _BUILDERS[path.suffix]


def _split(splits: DatasetDict, name: str, where: str) -> Dataset:
    if name not in splits:
        raise WorkloadError(
            "no such split",
            where=where,
            got=name,
            expected=f"one of {', '.join(splits)}",
            nearest=nearest_name(name, splits),
        )
    return splits[name]


def _class_names(rows: Dataset, source: DataSource) -> list[str] | None:
    """Return the data set's own names of its classes; None if it has none."""
    feature = rows.features.get(source.label_column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _eval_split_name(source: DataSource, names: Sequence[str]) -> str:
    """Return the split for evaluation: the one named, else test, validation, or a part of train."""
    if source.eval_split != "auto":
        return source.eval_split
    return next((name for name in ("test", "validation") if name in names), "from-train")


def _examples(rows: Dataset, source: DataSource, task: Task) -> pa.Table:
    """Return the examples that the profile selects, in the file's order, with the task's names of columns.

    Works on the Arrow table in memory, since selecting through `datasets` would write cache files beside
    the user's data.
    """
    columns = task.columns(source)
    settings = {name: "label_column" if name == LABEL else "text_column" for name in columns}
    for name, column in columns.items():
        _require_column(rows, column, f"workload.{settings[name]}")
    table = rows.with_format("arrow")[:]
    keep = np.ones(len(table), dtype=bool)
    for column, value in source.where:
        _require_column(rows, column, "workload.where")
        keep &= _equal(table[column], column, value)
    table = pa.table({name: table[column] for name, column in columns.items()}).filter(
        pa.array(keep)
    )
    for name, column in columns.items():
        word = "label" if name == LABEL else "text"
        _require_values(table[name], word, f"workload.{settings[name]} {column}")
    texts = [name for name in columns if name != LABEL]
    if source.drop_duplicates:
        seen = list(zip(*(table[name].to_pylist() for name in texts), strict=True))
        first = {example: i for i, example in reversed(list(enumerate(seen)))}
        table = table.take(pa.array(sorted(first.values())))
    if not len(table):
        raise WorkloadError("no row is left", where="workload.dataset", got=source.source.reference)
    for place, name in enumerate(texts):
        table = table.set_column(place, name, table[name].cast(pa.string()))
    if not source.balanced:
        return table
    classes = task.strata(table[LABEL])
    smallest = min(map(len, classes))
    return table.take(pa.array(np.sort(np.concatenate([rows[:smallest] for rows in classes]))))


def _require_values(values: pa.ChunkedArray, name: str, where: str) -> None:
    """Raise WorkloadError unless a column has one plain value in every row."""
    if pa.types.is_nested(values.type):
        raise WorkloadError(f"a {name} must be one value", where=where, got=str(values.type))
    if values.null_count:
        raise WorkloadError(f"{values.null_count} rows have no {name}", where=where)


def _equal(values: Any, column: str, wanted: Scalar) -> Any:
    """Return a mask of the values that equal `wanted`; raises WorkloadError for another type."""
    try:
        return _as_numpy(pc.fill_null(pc.equal(values, pa.scalar(wanted)), False))
    except pa.ArrowNotImplementedError as error:
        raise WorkloadError(
            f"{column} cannot be compared with {wanted!r}",
            where="workload.where",
            got=type(wanted).__name__,
            expected=str(values.type),
        ) from error


def _as_numpy(column: Any) -> Any:
    return (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )


def _require_column(rows: Dataset, column: str, where: str) -> None:
    if column not in rows.column_names:
        raise WorkloadError(
            "no such column",
            where=where,
            got=column,
            expected=f"one of {', '.join(rows.column_names)}",
            nearest=nearest_name(column, rows.column_names),
        )


def _hold_out(table: pa.Table, task: Task) -> tuple[pa.Table, pa.Table]:
    """Return (train, evaluation): the last part of each class, or of each group of similar labels, is held out.

    That part is contiguous, since near-duplicates (reviews of one film) are next to each other.
    """
    kept, held_out = [], []
    for rows in task.strata(table[LABEL]):
        cut = len(rows) - round(HELD_OUT * len(rows))
        kept.append(rows[:cut])
        held_out.append(rows[cut:])
    train, evaluation = (pa.array(np.concatenate(parts)) for parts in (kept, held_out))
    return table.take(train), table.take(evaluation)


def tokenise(
    pool: Dataset,
    count: int,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    padding: str,
    identity: dict[str, Any],
) -> Path:
    """Return the Arrow file of the first `count` examples of a pool, tokenised.

    The file is in the cache of the library datasets under a hash of `identity` and the other arguments, and
    is made only if it does not exist. With padding "longest", examples keep their length and the collator pads
    each batch.
    """
    made_by = {name: version(name) for name in _TOKENISED_BY}
    key = {**identity, "count": count, "max_length": max_length, "padding": padding, **made_by}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "ftbench"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest}.arrow"

    def encode(batch: Mapping[str, Sequence[str]]) -> Any:
        return task.encode(tokenizer, batch, max_length=max_length, pad=padding == "max_length")

    pool.select(range(count)).map(
        encode,
        batched=True,
        remove_columns=[name for name in pool.column_names if name != "labels"],
        cache_file_name=str(file),
        new_fingerprint=digest,
        load_from_cache_file=True,
    )
    return file


def read_tokenised(file: str, count: int) -> Dataset:
    """Return the first `count` examples of a tokenised pool, in torch format."""
    return Dataset.from_file(file).select(range(count)).with_format("torch")
