"""Traces of a user's own training steps, for the command line and for tests."""

from __future__ import annotations

from collections.abc import Callable

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.events import Trace
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import STEPS, Step, Target, trace


def trace_steps(
    factory: Callable[..., Step],
    *,
    target: Target | None = None,
    steps: int | None = None,
    ranks: Ranks | None = None,
) -> Trace:
    """Return the memory events of training steps, `STEPS` of them unless another number is given.

    With `ranks`, those of one rank of several.

    Raises PredictionError if the number is not positive, or if the steps make no tensor on the card; and the errors
    of `trace`.
    """
    __tracebackhide__ = True
    if steps is not None and steps < 1:
        raise PredictionError(
            "no steps to trace", where="steps", got=str(steps), expected="1 or more"
        )
    traced = trace(factory, target=target, steps=steps or STEPS, ranks=ranks)
    if not traced.peak_bytes:
        raise PredictionError(
            "the steps make no tensor on the card",
            hint="make model, optimizer and batch on the device that the factory is given",
        )
    return traced
