"""A worker that predicts, and says which files it read: a `RecordedRequest` in, `RecordedPredictions` out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ftbench.records.messages import Progress
from ftbench.records.recorded import RecordedRequest
from ftbench.worker.process.file_log import FileLog


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the answer of another entry and the files that it read, all as JSON data; raises its errors."""
    asked = RecordedRequest.model_validate(body)
    log = FileLog()  # before torch and transformers are imported
    answer = importlib.import_module(asked.module).main(asked.request, emit)
    return {"answer": answer, "read": log.read().model_dump(mode="json")}
