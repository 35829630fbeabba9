"""Predict: the GPU memory of a training step, on a machine without a GPU.

    trace = bench.predict.trace(factory)                 # any module: what its steps allocate
    trace = bench.predict.trace_trainer(cell)            # a cell of a profile: its own Trainer's steps
    peaks = bench.predict.simulate(trace, AllocatorSettings(capacity_bytes=...))
    fitted = bench.predict.fit_events({(batch, length): trace, ...})
    fitted.at(16, 512), fitted.peak_bytes(16, 512)       # any other shape, to the byte
    bench.predict.predict(cells, gpus, documents=read_documents(cells))  # cells on cards

torch is imported with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.predict.allocator import AllocatorSettings, CachingAllocator, Replay
    from bench.predict.cards import Card, card_of
    from bench.predict.cells import predict
    from bench.predict.documents import Documents, read_documents
    from bench.predict.events import Trace
    from bench.predict.fit import FitError, FittedTrace, fit_events
    from bench.predict.simulation import SCENARIOS, Scenario, Simulated, simulate, simulate_all
    from bench.predict.tracer import Target, trace
    from bench.predict.trainer import Batches, trace_trainer
    from bench.predict.workspaces import Runtime

_PLACES = {
    "AllocatorSettings": "allocator",
    "CachingAllocator": "allocator",
    "Replay": "allocator",
    "Card": "cards",
    "card_of": "cards",
    "predict": "cells",
    "Documents": "documents",
    "read_documents": "documents",
    "Trace": "events",
    "FitError": "fit",
    "FittedTrace": "fit",
    "fit_events": "fit",
    "SCENARIOS": "simulation",
    "Scenario": "simulation",
    "Simulated": "simulation",
    "simulate": "simulation",
    "simulate_all": "simulation",
    "Target": "tracer",
    "trace": "tracer",
    "Batches": "trainer",
    "trace_trainer": "trainer",
    "Runtime": "workspaces",
}

__all__ = [
    "SCENARIOS",
    "AllocatorSettings",
    "Batches",
    "CachingAllocator",
    "Card",
    "Documents",
    "FitError",
    "FittedTrace",
    "Replay",
    "Runtime",
    "Scenario",
    "Simulated",
    "Target",
    "Trace",
    "card_of",
    "fit_events",
    "predict",
    "read_documents",
    "simulate",
    "simulate_all",
    "trace",
    "trace_trainer",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"bench.predict.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
