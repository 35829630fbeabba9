"""All tasks, by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from ftbench.plan.profile import TaskName
from ftbench.plan.sources import DataSource
from ftbench.worker.tasks.causal_lm import CausalLm
from ftbench.worker.tasks.masked_lm import MaskedLm
from ftbench.worker.tasks.protocol import Task
from ftbench.worker.tasks.seq2seq_lm import Seq2SeqLm
from ftbench.worker.tasks.text_classification import TextClassification
from ftbench.worker.tasks.text_regression import TextRegression
from ftbench.worker.tasks.token_classification import TokenClassification

_TASKS: tuple[type[Task], ...] = (
    TextClassification,
    TextRegression,
    TokenClassification,
    CausalLm,
    MaskedLm,
    Seq2SeqLm,
)
TASKS: Mapping[TaskName, type[Task]] = MappingProxyType({task.name: task for task in _TASKS})


@functools.lru_cache(maxsize=64)
def task_of(source: DataSource) -> Task:
    """Return the task of a data set, with the columns and settings that its profile names."""
    return TASKS[source.task](source)
