"""All tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ftbench.plan.profile import TaskName
from ftbench.worker.tasks.protocol import Task
from ftbench.worker.tasks.text_classification import TextClassification
from ftbench.worker.tasks.text_regression import TextRegression

_TASKS: tuple[Task, ...] = (TextClassification(), TextRegression())
TASKS: Mapping[TaskName, Task] = MappingProxyType({task.name: task for task in _TASKS})
