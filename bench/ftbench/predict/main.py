"""A worker process that predicts: a `PredictRequest` in, `Predictions` out, both as JSON data.

It lives for seconds, so Python's cyclic collector is off: collections are a seventh of the time that importing
torch and transformers takes, and more than a second at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from ftbench.base.errors import WorkloadError
from ftbench.records.messages import Progress
from ftbench.records.prediction import PredictRequest


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Predictions` that a `PredictRequest` asks for, both as JSON data."""
    gc.disable()
    answer = _predict(PredictRequest.model_validate(body), emit)
    gc.freeze()  # the last collections of the interpreter have nothing to look at
    return answer


def _predict(request: PredictRequest, emit: Callable[[Progress], None]) -> dict[str, Any]:
    from ftbench.predict.lengths import (  # torch, transformers and the rest
        SequenceLengths,
        read_lengths,
    )
    from ftbench.predict.predict_cells import predict

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked from this one
    documents = SequenceLengths()
    if request.full_batches:
        documents = SequenceLengths(lengths=(max(cell.max_length for cell in request.cells),))
    elif request.data_at_hand:
        emit(Progress(phase="reading the data"))
        try:
            documents = read_lengths(request.cells)
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
