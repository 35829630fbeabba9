"""Growth: memory that steps keep, and of which there is more after each few steps."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ftbench.prediction.breakdown.parts import part_keys
from ftbench.prediction.trace.events import EVALUATION, Trace
from ftbench.records.prediction import GrowingPart, Growth

# What a model and its optimizer keep has an end: a leak is in none of these.
_MODEL = ("parameters", "gradients", "optimizer state")
_FEWEST_STEPS = 3


def growth(trace: Trace) -> Growth | None:
    """Return by how much the memory that is kept from step to step grows; None if it does not.

    The most that is live at the end of one of the last steps is compared with that of as many steps before, so a
    loop that collects and lets go (accumulated gradients) does not grow. Of a leak in every k-th step, 2 k + 1
    steps tell. Fewer than three steps tell nothing.
    """
    ends = _ends(trace)
    if len(ends) < _FEWEST_STEPS:
        return None
    window = (len(ends) - 1) // 2
    roles = trace.roles()
    kept = np.array([roles.get(block) not in _MODEL for block in trace.block.tolist()])
    live = np.cumsum(trace.signs * trace.nbytes * kept)
    before, after = (
        max(ends[first:last], key=lambda event: (int(live[event]), event))
        for first, last in ((-2 * window, -window), (-window, None))
    )
    nbytes = int(live[after] - live[before])
    if nbytes <= 0:
        return None
    return Growth(nbytes=nbytes, steps=window, parts=_parts(trace, before, after))


def _ends(trace: Trace) -> list[int]:
    """Return the last event of each step."""
    found: dict[int, int] = {}
    for event, (_, _, site) in enumerate(trace.rows()):
        place = trace.sites[site]
        if place.step and place.phase != EVALUATION:
            found[place.step] = event
    return [found[step] for step in sorted(found)]


def _parts(trace: Trace, before: int, after: int) -> tuple[GrowingPart, ...]:
    """Return the parts of which more is live after one event than after another, the largest first."""
    keys = part_keys(trace)
    sums: Counter[tuple[str, str, str, str]] = Counter()
    for sign, event in ((1, after), (-1, before)):
        for row in trace.live_at(event):
            role, module, operator, _ = keys[row]
            origin = trace.origins.get(int(trace.block[row]))
            source = origin.source if origin else ""
            if role not in _MODEL:
                sums[role, module, operator, source] += sign * int(trace.nbytes[row])
    names = ("role", "module", "operator", "source")
    return tuple(
        GrowingPart(**dict(zip(names, key, strict=True)), nbytes=nbytes)
        for key, nbytes in sums.most_common()
        if nbytes > 0
    )
