"""First look: a worker describes the columns of a data set, another one its texts and the time of steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from ftbench.execute.engines.base import Engine
from ftbench.execute.outcome import require_answer
from ftbench.records.first_look import ColumnsRequest, DataColumns, TextFacts, TextsRequest
from ftbench.records.messages import Progress

COLUMNS = "ftbench.worker.first_look.columns"
TEXTS = "ftbench.worker.first_look.texts"
TIMEOUT_S = 3600.0

Answer = TypeVar("Answer", bound=BaseModel)
OnProgress = Callable[[Progress], None]


def columns_of(request: ColumnsRequest, engine: Engine, on_progress: OnProgress) -> DataColumns:
    """Return the columns of a data set; raises the worker's own error, and WorkerError if it has no answer."""
    return _asked(COLUMNS, request, "look at the columns", DataColumns, engine, on_progress)


def texts_of(request: TextsRequest, engine: Engine, on_progress: OnProgress) -> TextFacts:
    """Return the facts about the texts that a run would have, with the time of steps; raises as `columns_of`."""
    return _asked(TEXTS, request, "look at the texts", TextFacts, engine, on_progress)


def _asked(
    module: str,
    request: BaseModel,
    stage: str,
    model: type[Answer],
    engine: Engine,
    on_progress: OnProgress,
) -> Answer:
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        outcome = engine.run(
            module,
            request.model_dump_json(),
            log_file=Path(scratch) / "look.log",
            timeout_s=TIMEOUT_S,
            on_progress=on_progress,
        )
        return require_answer(outcome, stage, model, None)
