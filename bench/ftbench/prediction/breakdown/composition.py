"""Composition of the peak of a trace, and the moment at which it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ftbench.prediction.trace.events import EVALUATION, Kind, Trace
from ftbench.records.prediction import Composition, Moment, Share

# The number of lines in a table of modules or operators; the rest is summed in one line.
LARGEST = 12
TIMELINE_POINTS = 240
REST = "the rest"
OUTSIDE = "(outside the model)"
UNKNOWN_LINE = "(a line that is not known)"


def compose(trace: Trace) -> Composition:
    """Return the live bytes at the peak by role, module, operator and line of code, and the memory timeline."""
    live = trace.live_at(trace.peak_event)
    roles = trace.roles()

    def shares(name_of: Callable[[int], str]) -> tuple[Share, ...]:
        sums: Counter[str] = Counter()
        for row in live:
            sums[name_of(row)] += int(trace.nbytes[row])
        return tuple(Share(name=name, nbytes=nbytes) for name, nbytes in sums.most_common())

    modules = shares(lambda row: module_of(trace, row))
    operators = shares(lambda row: trace.sites[trace.site[row]].operator)
    return Composition(
        moment=moment_of(trace),
        roles=shares(lambda row: roles[int(trace.block[row])]),
        modules=_largest(modules),
        operators=_largest(operators),
        lines=_largest(shares(lambda row: _line(trace, row))) if trace.origins else (),
        timeline=_timeline(trace),
        phases=_phases(trace),
    )


def moment_of(trace: Trace) -> Moment:
    """Return the moment at which the peak is reached."""
    site = trace.sites[trace.site[trace.peak_event]]
    return Moment(phase=site.phase, step=site.step, module=site.module, operator=site.operator)


def module_of(trace: Trace, row: int) -> str:
    """Return the module that an allocation belongs to, with one name for all layers of a stack."""
    return one_name(trace.owners.get(int(trace.block[row])) or trace.sites[trace.site[row]].module)


def one_name(name: str) -> str:
    """Return a module's name with all layers of a stack as one: `layer.*`."""
    parts = ("*" if part.isdigit() else part for part in name.split("."))
    return ".".join(parts) or OUTSIDE


def _line(trace: Trace, row: int) -> str:
    """Return the line of code that made an allocation."""
    origin = trace.origins.get(int(trace.block[row]))
    return (origin.source if origin else "") or UNKNOWN_LINE


def _largest(shares: tuple[Share, ...]) -> tuple[Share, ...]:
    if len(shares) <= LARGEST:
        return shares
    rest = sum(share.nbytes for share in shares[LARGEST:])
    return (*shares[:LARGEST], Share(name=REST, nbytes=rest))


def _timeline(trace: Trace) -> tuple[tuple[int, int], ...]:
    """Return (event, live bytes): the maximum of each of equal parts of the events."""
    live = trace.live_bytes
    edges = np.linspace(0, len(live), min(TIMELINE_POINTS, len(live)) + 1).astype(int)
    tops = [
        begin + int(live[begin:end].argmax())
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    return tuple((event, int(live[event])) for event in tops)


def _phases(trace: Trace) -> tuple[tuple[int, str], ...]:
    """Return (event, name) of the beginning of each step, and of the phases before and after the steps."""
    found: list[tuple[int, str]] = []
    for event, (kind, _, site) in enumerate(trace.rows()):
        place = trace.sites[site]
        name = f"step {place.step}" if place.step else place.phase
        if place.phase == EVALUATION:
            name = EVALUATION
        if kind == Kind.ALLOCATE and (not found or found[-1][1] != name):
            found.append((event, name))
    return tuple(found)
