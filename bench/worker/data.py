"""Data: load, check, split into two pools, tokenise once per length, read back.

Pools are shuffled with `shuffle_seed` before anything is selected, as the recipe does
(`shuffle(seed=42).select(range(n))`), so a smaller training subset is the start of a larger one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, load_dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from bench.errors import WorkloadError, nearest_name
from bench.profile import Scalar
from bench.workload import DATA_SUFFIXES, DataSource

# Part of each class that becomes the evaluation pool where a data set has only one split.
HELD_OUT = 0.2
_BUILDERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_TOKENISED_BY = ("datasets", "tokenizers", "transformers")


@dataclasses.dataclass(frozen=True)
class Pools:
    """Shuffled training and evaluation pools, with columns `text` and `labels` (0..n-1)."""

    train: Dataset
    evaluation: Dataset
    labels: tuple[str, ...]
    eval_split: str


def load_pools(source: DataSource) -> Pools:
    """Return the two pools of a data set; raises WorkloadError where it isn't what the profile says."""
    splits = _load_splits(source)
    train = _split(splits, source.train_split, source, "workload.train_split")
    held_out_name = _eval_split_name(source, list(splits))
    train = _rows(train, source)
    if held_out_name == "from-train":
        train, held_out = _hold_out(train, source)
    else:
        held_out = _rows(_split(splits, held_out_name, source, "workload.eval_split"), source)
    names = _label_names(train, source)
    shuffled = [
        _labelled(rows, names, source).shuffle(seed=source.shuffle_seed)
        for rows in (train, held_out)
    ]
    return Pools(shuffled[0], shuffled[1], tuple(map(str, names)), held_out_name)


def _load_splits(source: DataSource) -> DatasetDict:
    """Return every split that the source has."""
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
            "a kind of file that is not read",
            where="workload.dataset",
            got=path.name,
            expected=f"a file ending in {', '.join(DATA_SUFFIXES)}",
        )
    return _BUILDERS[path.suffix]


def _split(splits: DatasetDict, name: str, source: DataSource, where: str) -> Dataset:
    if name not in splits:
        raise WorkloadError(
            "no such split",
            where=where,
            got=name,
            expected=f"one of {', '.join(splits)} of {source.source.reference}",
            nearest=nearest_name(name, splits),
        )
    return splits[name]


def _eval_split_name(source: DataSource, names: Sequence[str]) -> str:
    """Return the split to evaluate on: the one named, else test, validation, or a part of train."""
    if source.eval_split != "auto":
        return source.eval_split
    return next((name for name in ("test", "validation") if name in names), "from-train")


def _rows(rows: Dataset, source: DataSource) -> Dataset:
    """Return the rows that the profile keeps, in the order of the file."""
    for key, column in (("text_column", source.text_column), ("label_column", source.label_column)):
        _require_column(rows, column, f"workload.{key}")
    table = rows.data.table
    keep = np.ones(len(rows), dtype=bool)
    for column, value in source.where:
        _require_column(rows, column, "workload.where")
        keep &= _equal(table[column], column, value)
    text = table[source.text_column]
    for column, what in ((source.text_column, "text"), (source.label_column, "label")):
        where = f"workload.{what}_column {column}"
        if pa.types.is_nested(table[column].type):
            raise WorkloadError(
                f"a {what} must be one value", where=where, got=str(table[column].type)
            )
        empty = int(np.count_nonzero(_as_numpy(pc.is_null(table[column])) & keep))
        if empty:
            raise WorkloadError(f"{empty} rows have no {what}", where=where)
    indices = np.flatnonzero(keep)
    if source.drop_duplicates:
        first = {
            t: i
            for i, t in reversed(
                list(zip(indices, text.take(pa.array(indices)).to_pylist(), strict=True))
            )
        }
        indices = np.sort(np.fromiter(first.values(), dtype=np.int64))
    if not len(indices):
        raise WorkloadError("no row is left", where="workload.where", got=repr(dict(source.where)))
    columns = [source.text_column, source.label_column]
    return (
        rows.select_columns(columns)
        if len(indices) == len(rows)
        else rows.select_columns(columns).select(indices)
    )


def _equal(values: Any, column: str, wanted: Scalar) -> Any:
    """Return which values of a column equal the one wanted; raises WorkloadError for another type."""
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


def _hold_out(rows: Dataset, source: DataSource) -> tuple[Dataset, Dataset]:
    """Return (train, evaluation): the last part of each class is held out.

    Contiguous within a class, since near-duplicates (reviews of one film) stand together.
    """
    labels = np.asarray(rows[source.label_column][:])
    by_class = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    smallest = min(map(len, by_class))
    kept, held_out = [], []
    for indices in by_class:
        chosen = indices[:smallest] if source.balanced else indices
        cut = len(chosen) - round(HELD_OUT * len(chosen))
        kept.append(chosen[:cut])
        held_out.append(chosen[cut:])
    return rows.select(np.concatenate(kept)), rows.select(np.concatenate(held_out))


def _label_names(rows: Dataset, source: DataSource) -> list[Any]:
    """Return the labels in the order of their numbers: a ClassLabel's names, else sorted values."""
    feature = rows.features[source.label_column]
    values = rows.unique(source.label_column)
    names = feature.names if isinstance(feature, ClassLabel) else sorted(values)
    if len(names) < 2:
        raise WorkloadError(
            "one class only: there is nothing to learn",
            where=f"workload.label_column {source.label_column}",
            got=repr(names),
        )
    return list(names)


def _labelled(rows: Dataset, names: list[Any], source: DataSource) -> Dataset:
    """Return rows with columns `text` and `labels`, the labels numbered as in `names`."""
    if isinstance(rows.features[source.label_column], ClassLabel):
        numbers = list(rows[source.label_column])
    else:
        number = {name: i for i, name in enumerate(names)}
        values = list(rows[source.label_column])
        unknown = sorted({str(v) for v in values if v not in number})
        if unknown:
            raise WorkloadError(
                "the evaluation pool has labels that training does not",
                where=f"workload.label_column {source.label_column}",
                got=", ".join(unknown),
            )
        numbers = [number[v] for v in values]
    text = rows.with_format("arrow")[:][source.text_column].cast(pa.string())
    return Dataset(pa.table({"text": text, "labels": pa.array(numbers, pa.int64())}))


def tokenise(
    pool: Dataset,
    count: int,
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    padding: str,
    identity: dict[str, Any],
) -> Path:
    """Return the Arrow file of the first `count` documents of a pool, tokenised.

    The file lies in the datasets cache under a hash of `identity` (what decides the content) and
    is made only where it is not there yet. With padding "longest" documents keep their length
    and the collator pads each batch.
    """
    made_by = {name: version(name) for name in _TOKENISED_BY}
    key = {**identity, "count": count, "max_length": max_length, "padding": padding, **made_by}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "ftbench"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest}.arrow"

    def encode(batch: dict[str, list[str]]) -> Any:
        return tokenizer(
            batch["text"],
            truncation=True,
            max_length=max_length,
            padding="max_length" if padding == "max_length" else False,
        )

    pool.select(range(count)).map(
        encode,
        batched=True,
        remove_columns=["text"],
        cache_file_name=str(file),
        new_fingerprint=digest,
        load_from_cache_file=True,
    )
    return file


def read_tokenised(file: str, count: int) -> Dataset:
    """Return the first `count` documents of a tokenised pool, in torch format."""
    return Dataset.from_file(file).select(range(count)).with_format("torch")
