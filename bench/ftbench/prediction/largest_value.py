"""The largest value of a program's argument, such as its batch, that fits on a card: searched by traces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from ftbench.prediction.bisection import last_from_near
from ftbench.prediction.simulate.cards import Card, verdict_of
from ftbench.prediction.simulate.simulation import Simulated
from ftbench.prediction.trace.events import Trace
from ftbench.records.prediction import LargestValue, Verdict

MOST = 2**20
# The values from which the first guess comes: a value of one may have events of its own.
_FEW = (2, 4)


def largest_values(
    cell_id: str,
    argument: str,
    cards: list[Card],
    trace: Callable[[int], Trace],
    simulate: Callable[[Trace, Card], Simulated],
) -> Iterator[LargestValue]:
    """Yield the largest value that fits on each card, under every assumption and under some.

    The tensors' peak is taken as a line for the first guess only: at the values found, the next larger one that was
    tried does not fit.
    """
    traced = functools.cache(trace)
    for card in cards:

        @functools.cache  # the two searches overlap
        def verdict(value: int, card: Card = card) -> Verdict:
            return verdict_of(simulate(traced(value), card))

        near = _near(traced, card.capacities[0])
        possible = last_from_near(lambda value: verdict(value) != "does not fit", near, MOST)
        certain = last_from_near(lambda value: verdict(value) == "fits", possible, possible)
        yield LargestValue(
            cell_id=cell_id, gpu=card.name, argument=argument, certain=certain, possible=possible
        )


def _near(traced: Callable[[int], Trace], room: int) -> int:
    """Return the value at which the tensors' peak would fill the room, were it a line."""
    (low, high), (least, more) = _FEW, (traced(value).peak_bytes for value in _FEW)
    slope = (more - least) / (high - low)
    return max(1, int(low + (room - least) / slope)) if slope > 0 else MOST
