"""Facts about the pools that decide how far a score can be trusted: classes, and examples in both pools."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from datasets import Dataset

from ftbench.plan.cell import Cell
from ftbench.records.measurement import RunWarning
from ftbench.records.messages import ClassCount, DataFacts
from ftbench.worker.data.lists import texts_of
from ftbench.worker.data.pools import Pools
from ftbench.worker.tasks.tasks import task_of


def describe_pools(pools: Pools, cells: Sequence[Cell]) -> DataFacts:
    """Return the facts about the pools of cells, which share one data set."""
    evaluated = pools.evaluation.select(range(cells[0].data.eval_size))
    return DataFacts(
        classes=_classes(pools, evaluated) if task_of(cells[0].data).has_classes else (),
        left_out=dict(pools.left_out),
        evaluated_in_training=_in_both(
            pools.train, evaluated, {_texts(cell, len(pools.train)) for cell in cells}
        ),
        notes=pools.notes,
    )


def _classes(pools: Pools, evaluated: Dataset) -> tuple[ClassCount, ...]:
    counts = [
        np.bincount(pool.with_format("numpy")["labels"][:], minlength=len(pools.labels)).tolist()
        if pools.labels
        else []
        for pool in (pools.train, pools.evaluation, evaluated)
    ]
    return tuple(
        ClassCount(name=name, train_pool=trained, eval_pool=pool, evaluated=seen)
        for name, trained, pool, seen in zip(pools.labels, *counts, strict=True)
    )


def _texts(cell: Cell, pool: int) -> int:
    """Return the number of texts of a pool that a cell may train on: with joined texts perhaps all."""
    return pool if cell.packing == "concatenate" else cell.train_size


def _in_both(train: Dataset, evaluated: Dataset, sizes: set[int]) -> dict[int, int]:
    """Return the number of evaluated examples that are among the first training examples, for each size."""
    texts = [name for name in train.column_names if name != "labels"]
    trained = train.select(range(max(sizes)))
    first: dict[Hashable, int] = {}
    for place, example in enumerate(texts_of(trained, texts)):
        first.setdefault(example, place)
    places = [first.get(example, len(trained)) for example in texts_of(evaluated, texts)]
    return {size: sum(place < size for place in places) for size in sorted(sizes)}


def data_warnings(facts: DataFacts, cell: Cell, pool: int) -> list[RunWarning]:
    """Return the warnings of a cell that follow from its data; `pool` is the size of the training pool."""
    found = []
    if facts.classes and facts.majority_share == 1:
        (only,) = (one for one in facts.classes if one.evaluated)
        message = (
            f"all {only.evaluated:,} evaluation examples are of the class {only.name!r}:"
            " a model that always answers it is right in all of them"
        )
        found.append(RunWarning(name="one_class", message=message, value=only.evaluated))
    shared = facts.evaluated_in_training.get(_texts(cell, pool), 0)
    if shared:
        message = (
            f"{shared:,} of {cell.data.eval_size:,} evaluation examples are training examples, too:"
            " the score is not that of new texts"
        )
        found.append(RunWarning(name="trained_on", message=message, value=shared))
    for reason, count in facts.left_out.items():
        message = f"{count:,} rows of the data set were left out, as the profile asks: {reason}"
        found.append(RunWarning(name="left_out", message=message, value=count))
    return found


def choice_warning(cell: Cell, evaluations: int) -> list[RunWarning]:
    """Return a warning if the model was chosen by the examples that its score is reported on."""
    if not cell.settings["load_best_model_at_end"] or evaluations < 2:
        return []
    message = (
        f"the model is the best of {evaluations} by the evaluation examples that its score is reported on,"
        " so the score is higher than on new texts"
    )
    return [RunWarning(name="chosen_on_evaluation", message=message, value=evaluations)]
