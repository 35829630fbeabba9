"""Main: a worker process that predicts; the parent of a command never imports torch.

Request and answer are JSON (`bench.prediction`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bench.errors import WorkloadError
from bench.messages import Progress
from bench.predict.cells import predict
from bench.predict.documents import Documents, read_documents
from bench.prediction import PredictRequest


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Predictions` that a `PredictRequest` asks for, both as JSON data."""
    request = PredictRequest.model_validate(body)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked from this one
    documents = Documents()
    if request.full_batches:
        documents = Documents(lengths=(max(cell.max_length for cell in request.cells),))
    elif request.data_at_hand:
        emit(Progress(phase="reading the data"))
        try:
            documents = read_documents(request.cells)
        except WorkloadError:
            if request.cells[0].data.source.kind != "hub":
                raise
            request = request.model_copy(update={"data_at_hand": False})
    predictions = predict(
        request.cells,
        request.gpus,
        documents=documents,
        request=request,
        on_progress=lambda phase: emit(Progress(phase=phase)),
    )
    return predictions.model_dump(mode="json")
