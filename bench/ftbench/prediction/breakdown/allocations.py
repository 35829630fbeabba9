"""Allocations of a trace in the order in which torch's caching allocator sees them, each with its part."""

from __future__ import annotations

from ftbench.prediction.breakdown.composition import one_name
from ftbench.prediction.breakdown.parts import part_keys
from ftbench.prediction.simulate.replay import ALLOCATE, REUSE
from ftbench.prediction.simulate.simulation import requests
from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime
from ftbench.prediction.trace.events import Trace
from ftbench.records.predicted_allocations import WORKSPACES, PredictedAllocations, PredictedPart


def predicted_allocations(trace: Trace, runtime: Runtime | None) -> PredictedAllocations:
    """Return a trace's allocations, with the workspaces of kernels; without those if there is no runtime.

    A block of zero bytes is left out: torch does not ask its allocator for one.
    """
    made = requests(trace, runtime)
    keys = part_keys(trace)
    columns: list[tuple[int, int, int]] = []  # bytes, stream, part
    ended: list[int] = []
    row_of: dict[int, int] = {}
    numbers: dict[PredictedPart, int] = {}
    rows = zip(made.signs, made.blocks, made.nbytes, made.streams, made.events, strict=True)
    for sign, block, nbytes, stream, event in rows:
        if sign == ALLOCATE and nbytes:
            row_of[block] = len(columns)
            part = _part(trace, event, keys.get(event))
            columns.append((nbytes, stream, numbers.setdefault(part, len(numbers))))
            ended.append(-1)
        elif sign not in (ALLOCATE, REUSE) and (row := row_of.pop(block, None)) is not None:
            ended[row] = len(columns)
    return PredictedAllocations(
        nbytes=tuple(row[0] for row in columns),
        streams=tuple(row[1] for row in columns),
        ended=tuple(ended),
        parts=tuple(row[2] for row in columns),
        part_names=tuple(numbers),
    )


def _part(trace: Trace, event: int, key: tuple[str, str, str, str] | None) -> PredictedPart:
    """Return the origin of an event's allocation: a tensor, or a workspace, which has no part of its own."""
    site = trace.sites[trace.site[event]]
    if key is None:
        role, module, source = WORKSPACES, one_name(site.module), ""
    else:
        role, module, _, _ = key
        origin = trace.origins.get(int(trace.block[event]))
        source = origin.source if origin else ""
    return PredictedPart(
        phase=site.phase,
        step=site.step,
        role=role,
        module=module,
        operator=site.operator,
        source=source,
    )
