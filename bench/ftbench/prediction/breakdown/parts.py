"""Parts: the live memory at several moments of a step, so that changes can be attributed.

The peak alone is not enough: a change that moves the peak to another moment replaces most of the live parts.
So each part also has its size at fixed moments of the last traced step, and its largest size at any time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ftbench.prediction.breakdown.composition import module_of, moment_of
from ftbench.prediction.trace.events import (
    BACKWARD,
    EVALUATION,
    FORWARD,
    OPTIMIZER,
    Kind,
    Trace,
)
from ftbench.records.prediction import MARKS, MarkName, MemoryBreakdown, Part

_Key = tuple[str, str, str, str]


def breakdown(trace: Trace) -> MemoryBreakdown:
    """Return the parts of a trace's memory, in bytes at each mark, the largest at the peak first."""
    marks = _marks(trace)
    rows = {name: trace.live_at(event) for name, event in marks.items()}
    keys = part_keys(trace)
    sums: dict[_Key, dict[MarkName, int]] = defaultdict(dict)
    for name, live in rows.items():
        counted: Counter[_Key] = Counter()
        for row in live:
            counted[keys[row]] += int(trace.nbytes[row])
        for key, nbytes in counted.items():
            sums[key][name] = nbytes
    for key, nbytes in _most(trace, keys).items():
        sums[key]["most"] = nbytes
    sources = _sources(trace, keys)
    parts = [
        Part(
            role=key[0],
            module=key[1],
            operator=key[2],
            dtype=key[3],
            nbytes={name: found[name] for name in MARKS if found.get(name)},
            source=sources.get(key, ""),
        )
        for key, found in sums.items()
    ]
    parts.sort(key=lambda part: (-part.nbytes.get("peak", 0), part.name))
    return MemoryBreakdown(moment=moment_of(trace), parts=tuple(parts))


def _marks(trace: Trace) -> dict[MarkName, int]:
    """Return the event of each mark that the trace has."""
    phases = np.array([site.phase for site in trace.sites])[trace.site]
    steps = np.array([site.step for site in trace.sites])[trace.site]
    live = trace.live_bytes
    last = steps.max(initial=0)
    found: dict[MarkName, int] = {"peak": trace.peak_event}
    own = np.flatnonzero((steps == last) & (phases != EVALUATION))
    if not last or not len(own):
        return found
    found["before a step"] = max(int(own[0]) - 1, 0)
    backward = own[phases[own] == BACKWARD]
    if len(backward):
        begins = backward[np.diff(backward, prepend=-2) > 1]  # one per accumulated batch
        forward = own[(phases[own] == FORWARD) & (own < backward[-1])]
        begin = begins[begins > forward[-1]] if len(forward) else begins
        found["after forward"] = max(int((begin if len(begin) else begins)[0]) - 1, 0)
        found["after backward"] = int(backward[-1])
    places: tuple[tuple[MarkName, str, NDArray[np.intp]], ...] = (
        ("in the optimizer", OPTIMIZER, own),
        ("in evaluation", EVALUATION, np.arange(len(phases))),
    )
    for name, phase, among in places:
        events = among[phases[among] == phase]
        if len(events):
            found[name] = int(events[live[events].argmax()])
    return found


def part_keys(trace: Trace) -> dict[int, _Key]:
    """Return the part that each allocation belongs to, by its row: role, module, operator, element type."""
    roles = trace.roles()
    found: dict[int, _Key] = {}
    for row, (kind, block, site) in enumerate(trace.rows()):
        if kind != Kind.ALLOCATE:
            continue
        role, operator = roles[block], trace.sites[site].operator
        if role in ("parameters", "gradients", "optimizer state"):
            operator = ""  # which operator made it first has no meaning for these roles
        origin = trace.origins.get(block)
        found[row] = (role, module_of(trace, row), operator, origin.dtype if origin else "")
    return found


def _most(trace: Trace, keys: dict[int, _Key]) -> dict[_Key, int]:
    """Return the largest size of each part at any time, in bytes."""
    now: Counter[_Key] = Counter()
    most: dict[_Key, int] = {}
    key_of: dict[int, _Key] = {}
    sizes = trace.nbytes.tolist()
    for row, (kind, block, _) in enumerate(trace.rows()):
        if kind == Kind.ALLOCATE:
            key = key_of[block] = keys[row]
            now[key] += sizes[row]
            most[key] = max(most.get(key, 0), now[key])
        elif kind == Kind.FREE:
            now[key_of[block]] -= sizes[row]
    return most


def _sources(trace: Trace, keys: dict[int, _Key]) -> dict[_Key, str]:
    """Return the line of code that made the largest allocation of each part."""
    largest: dict[_Key, tuple[int, str]] = {}
    for row, source in _sourced(trace, keys):
        size = int(trace.nbytes[row])
        if size > largest.get(keys[row], (-1, ""))[0]:
            largest[keys[row]] = (size, source)
    return {key: source for key, (_, source) in largest.items()}


def _sourced(trace: Trace, keys: dict[int, _Key]) -> Iterator[tuple[int, str]]:
    for row in keys:
        origin = trace.origins.get(int(trace.block[row]))
        if origin is not None and origin.source:
            yield row, origin.source
