"""A worker process that predicts: a `PredictRequest` in, `Predictions` out, both as JSON data.

The process lives for seconds, so Python's cyclic garbage collector is off: it would take a seventh of the time of
importing torch and transformers, and more than a second at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftbench.base.errors import HubUnreachable
from ftbench.records.messages import Progress
from ftbench.records.prediction import PredictRequest
from ftbench.worker.process.peft_alone import import_peft_alone

if TYPE_CHECKING:
    from ftbench.prediction.lengths import SequenceLengths


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Predictions` for a `PredictRequest`, both as JSON data."""
    gc.disable()
    answer = _predict(PredictRequest.model_validate(body), emit)
    gc.freeze()  # so that the interpreter's last collections are fast
    return answer


def _predict(request: PredictRequest, emit: Callable[[Progress], None]) -> dict[str, Any]:
    import_peft_alone()
    from ftbench.prediction.predict_cells import predict  # imports torch and transformers

    gc.freeze()  # the Trainer has all garbage collected: it need not look at every object of torch
    request, sequence_lengths = lengths_of(request, emit)
    predictions = predict(
        request.cells,
        request.gpus,
        sequence_lengths=sequence_lengths,
        request=request,
        on_progress=lambda phase: emit(Progress(phase=phase)),
    )
    told = predictions.model_copy(update={"by_length": sequence_lengths.by_length})
    return told.model_dump(mode="json")


def lengths_of(
    request: PredictRequest, emit: Callable[[Progress], None]
) -> tuple[PredictRequest, SequenceLengths]:
    """Return the lengths of a request's data; if the data cannot be read, the request says so."""
    from ftbench.prediction.lengths import SequenceLengths, read_lengths

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked from this one
    if request.full_batches or request.cells[0].data.source.kind == "synthetic":
        longest = max(cell.max_length for cell in request.cells)
        return request, SequenceLengths(lengths=(longest,))
    if not request.data_at_hand:
        return request, SequenceLengths()
    emit(Progress(phase="reading the data"))
    try:
        return request, read_lengths(request.cells, hypothetical=request.hypothetical)
    except HubUnreachable:
        return request.model_copy(update={"data_at_hand": False}), SequenceLengths()
