"""A worker process that predicts: a `PredictRequest` in, `Predictions` out, both as JSON data.

The process lives for seconds, so Python's cyclic garbage collector is off: it would take a seventh of the time of
importing torch and transformers, and more than a second at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from ftbench.base.errors import HubUnreachable
from ftbench.records.messages import Progress
from ftbench.records.prediction import PredictRequest
from ftbench.worker.process.peft_alone import import_peft_alone


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Predictions` for a `PredictRequest`, both as JSON data."""
    gc.disable()
    answer = _predict(PredictRequest.model_validate(body), emit)
    gc.freeze()  # so that the interpreter's last collections are fast
    return answer


def _predict(request: PredictRequest, emit: Callable[[Progress], None]) -> dict[str, Any]:
    import_peft_alone()
    from ftbench.predict.lengths import (  # imports torch and transformers
        SequenceLengths,
        read_lengths,
    )
    from ftbench.predict.predict_cells import predict

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are forked from this one
    sequence_lengths = SequenceLengths()
    if request.full_batches or request.cells[0].data.source.kind == "synthetic":
        sequence_lengths = SequenceLengths(
            lengths=(max(cell.max_length for cell in request.cells),)
        )
    elif request.data_at_hand:
        emit(Progress(phase="reading the data"))
        try:
            sequence_lengths = read_lengths(request.cells, hypothetical=request.hypothetical)
        except HubUnreachable:
            request = request.model_copy(update={"data_at_hand": False})
    predictions = predict(
        request.cells,
        request.gpus,
        sequence_lengths=sequence_lengths,
        request=request,
        on_progress=lambda phase: emit(Progress(phase=phase)),
    )
    return predictions.model_dump(mode="json")
