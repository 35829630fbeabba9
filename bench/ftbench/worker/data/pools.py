"""Pools: the examples of training and of evaluation, shuffled.

Pools are shuffled with `shuffle_seed` before a subset is selected
(`shuffle(seed=42).select(range(n))`), so a smaller training subset is the beginning of a larger one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ftbench.base.errors import WorkloadError, nearest_name
from ftbench.plan.cell import Cell
from ftbench.plan.content import hash_files, hashed_files
from ftbench.plan.sources import DataSource, Source
from ftbench.worker.data.columns import FILE, ROW, is_text, rows_named
from ftbench.worker.data.content import WHERE, Reading
from ftbench.worker.data.examples import read_examples
from ftbench.worker.data.find_splits import find_splits
from ftbench.worker.data.splits import Split
from ftbench.worker.tasks.protocol import LABEL, Labels, ReadsLabels, Task
from ftbench.worker.tasks.tasks import task_of

# The share of each class, or group of similar labels, that becomes the evaluation pool if there is only one split.
HELD_OUT = 0.2


@dataclasses.dataclass(frozen=True)
class Pools:
    """Shuffled training and evaluation pools with texts and `labels`, and the names of the classes.

    `left_out` counts the rows that were left out on request, by reason; `notes` say how files were read.
    """

    train: Dataset
    evaluation: Dataset
    labels: tuple[str, ...]
    eval_split: str
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_pools(source: DataSource) -> Pools:
    """Return the two pools of a data set; raises WorkloadError if it does not fit the profile."""
    task = task_of(source)
    reading = Reading(source.separator, source.encoding)
    left_out: Counter[str] = Counter()
    splits = find_splits(source, reading)
    rows = _split(splits, source.train_split, "workload.train_split")
    examples = read_examples(rows, source, task, reading, left_out)
    eval_split = _eval_split_name(source, list(splits))
    if eval_split == "from-train":
        train, held_out = _hold_out(examples, task)
    else:
        train = examples
        chosen = _split(splits, eval_split, "workload.eval_split")
        # Rows that are left out of the training split are not counted twice.
        counts = Counter[str]() if eval_split == source.train_split else left_out
        held_out = _evaluation_examples(chosen, source, task, reading, counts)
    labels = _labels(task, train, held_out, rows, source)
    _require_unchanged(source.source)
    return Pools(
        train=_pool(train, labels and labels.train).shuffle(seed=source.shuffle_seed),
        evaluation=_pool(held_out, labels and labels.evaluation).shuffle(seed=source.shuffle_seed),
        labels=labels.names if labels else (),
        eval_split=eval_split,
        left_out={reason: count for reason, count in left_out.items() if count},
        notes=tuple(reading.notes),
    )


def _labels(
    task: Task, train: pa.Table, evaluation: pa.Table, split: Split, source: DataSource
) -> Labels | None:
    """Return the labels of both pools; None if the task reads none."""
    if not isinstance(task, ReadsLabels):
        return None
    _require_same_type(train, evaluation, source.label_column)
    names = split.names(source.label_column)
    train, evaluation = (_numbered_names(pool, names, source) for pool in (train, evaluation))
    return task.read_labels(
        train[LABEL], evaluation[LABEL], names=names, column=source.label_column
    )


def _evaluation_examples(
    split: Split, source: DataSource, task: Task, reading: Reading, left_out: Counter[str]
) -> pa.Table:
    """Return the examples of the evaluation split; its errors say how to do without a split that was not named."""
    try:
        return read_examples(split, source, task, reading, left_out)
    except WorkloadError as error:
        if source.eval_split == "auto" and error.hint is None:
            error.hint = 'eval_split = "from-train" holds out a part of the training split instead'
        raise


def require_sizes(cells: Iterable[Cell], pools: Pools) -> None:
    """Raise WorkloadError if a pool has fewer examples than the largest cell asks for."""
    cells = list(cells)
    # Joined texts make another number of rows, which is known when they are tokenised.
    of_texts = [cell.train_size for cell in cells if cell.packing != "concatenate"]
    asked = {
        "grid.train_size": (max(of_texts, default=0), len(pools.train), "training"),
        "workload.eval_size": (cells[0].data.eval_size, len(pools.evaluation), "evaluation"),
    }
    for where, (wanted, size, pool) in asked.items():
        if wanted > size:
            raise WorkloadError(
                "more examples than the data set has",
                where=where,
                got=str(wanted),
                expected=f"at most {size}, the size of the {pool} pool",
            )


def _pool(table: pa.Table, labels: pa.Array | None) -> Dataset:
    """Return a table of texts, with the column `labels` instead of `label` if there are labels."""
    texts = table.drop_columns([ROW, FILE])
    if labels is None:
        return Dataset(texts)
    return Dataset(texts.drop_columns([LABEL]).append_column("labels", labels))


def _split(splits: Mapping[str, Split], name: str, where: str) -> Split:
    if name not in splits:
        raise WorkloadError(
            "no such split",
            where=where,
            got=name,
            expected=f"one of {', '.join(splits)}",
            nearest=nearest_name(name, splits),
        )
    return splits[name]


def _eval_split_name(source: DataSource, names: Sequence[str]) -> str:
    """Return the split for evaluation: the one named, else test, validation, or a part of train."""
    if source.eval_split != "auto":
        return source.eval_split
    return next((name for name in ("test", "validation") if name in names), "from-train")


def _hold_out(table: pa.Table, task: Task) -> tuple[pa.Table, pa.Table]:
    """Return (train, evaluation): the last part of each class, or of each group of similar labels, is held out.

    That part is contiguous, since near-duplicates (reviews of one film) are next to each other.
    """
    kept, held_out = [], []
    for rows in task.strata(table):
        cut = len(rows) - round(HELD_OUT * len(rows))
        kept.append(rows[:cut])
        held_out.append(rows[cut:])
    train, evaluation = (pa.array(np.concatenate(parts)) for parts in (kept, held_out))
    return table.take(train), table.take(evaluation)


def _require_same_type(train: pa.Table, evaluation: pa.Table, column: str) -> None:
    """Raise WorkloadError if the labels of one pool are texts, and those of the other are not."""
    if is_text(train[LABEL]) != is_text(evaluation[LABEL]):
        shown = [
            f"{pool[LABEL][0].as_py()!r} in row {pool[ROW][0]} of {pool[FILE][0]}"
            for pool in (train, evaluation)
        ]
        raise WorkloadError(
            "the labels of one split are texts, those of the other are not",
            where=f"workload.label_column {column}",
            got="; ".join(shown),
            expected="labels of one type",
        )


def _numbered_names(table: pa.Table, names: Sequence[str] | None, source: DataSource) -> pa.Table:
    """Return labels that are names of classes as their numbers; other labels as they are.

    Raises WorkloadError for a text that is none of the names.
    """
    if names is None or not is_text(table[LABEL]):
        return table
    labels = table[LABEL].cast(pa.string())
    numbers = pc.index_in(labels, value_set=pa.array(names, pa.string()))
    unknown = pc.is_null(numbers)
    if pc.any(unknown).as_py():
        raise WorkloadError(
            "labels that are none of the data set's own names of its classes",
            where=f"workload.label_column {source.label_column}",
            got=", ".join(map(repr, labels.filter(unknown).unique().to_pylist()[:5]))
            + f": {rows_named(table, unknown)}",
            expected=f"some of {', '.join(names[:30])}",
        )
    return table.set_column(table.column_names.index(LABEL), LABEL, numbers.cast(pa.int64()))


def _require_unchanged(source: Source) -> None:
    """Raise WorkloadError if files are not those that the source's revision is of."""
    if source.kind != "path":
        return
    found = hash_files(*hashed_files(Path(source.location), WHERE))[1]
    if found != source.revision:
        raise WorkloadError(
            "the files were changed after the cells were named by their content",
            where=WHERE,
            got=f"{source.reference} with revision {found}",
            expected=f"revision {source.revision}",
            hint="run the command again; with results outside of the data's own directory (--out)",
        )
