"""Asking: predictions for a request, from the cache or from a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.records.messages import Progress
    from ftbench.records.prediction import Predictions, PredictRequest, ProgramRequest

    Ask = Callable[[PredictRequest | ProgramRequest], Predictions]
    # Opened around a worker's life; what it gives receives the worker's progress.
    Show = Callable[[], AbstractContextManager[Callable[[Progress], None]]]


@contextlib.contextmanager
def silently() -> Iterator[Callable[[Progress], None]]:
    """Show no progress."""
    yield lambda _: None


def asked_of(show: Show = silently, *, cached: bool = True) -> Ask:
    """Return a function that answers requests: from the cache if it may and can, else by a worker."""

    def ask(request: PredictRequest | ProgramRequest) -> Predictions:
        from ftbench.execute.kept.kept_answer import KeptAnswer, default_store

        store = default_store() if cached else None
        kept = None if store is None else KeptAnswer(store, request)
        if kept is not None and (found := kept.find()) is not None:
            return found
        from ftbench.execute.prediction_worker import forecast, processes  # half a second

        request = request.model_copy(update={"processes": processes()})
        with show() as on_progress:
            return forecast(request, predictor(), kept=kept, on_progress=on_progress)

    return ask


def predictor() -> LocalEngine:
    """Return the engine of predictions; its workers see no card, since no card may influence them."""
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.plan.devices import Placement

    return LocalEngine("spawn", Placement(kind="cpu").environment)
