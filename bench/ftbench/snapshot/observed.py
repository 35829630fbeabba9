"""Observed: which of torch's figures a number is that somebody has read somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ftbench.records.prediction import CardPrediction, PredictedBytes
from ftbench.snapshot.history import FIGURES, FigureName, History
from ftbench.snapshot.result import FigureRow, Nearest


class _Candidate(NamedTuple):
    name: FigureName | Literal["process"]
    when: Literal["peak", "end", "predicted peak"]
    low: int
    high: int

    def distance(self, observed: int) -> int:
        """Return by how much a number is more than this figure, or less; 0 within its interval."""
        return observed - min(max(observed, self.low), self.high)


def figure_rows(
    history: History, tensors: PredictedBytes, card: CardPrediction | None
) -> tuple[FigureRow, ...]:
    """Return the figures of a recording beside the predicted ones; without a card, only `requested` is predicted.

    `active` differs from `allocated` by blocks that other streams still use, which is not predicted.
    """
    predicted: dict[str, PredictedBytes] = {"requested": tensors}
    if card is not None:
        predicted = {
            "requested": card.requested,
            "allocated": card.allocated,
            "reserved": card.reserved,
        }
    rows = [
        FigureRow(
            name, getattr(history.peaks, name), getattr(history.at_end, name), predicted.get(name)
        )
        for name in FIGURES
    ]
    return (*rows, FigureRow("process", None, None, card.process if card else None))


def nearest_figures(
    observed: Sequence[int], figures: Sequence[FigureRow], card: CardPrediction | None
) -> tuple[Nearest, ...]:
    """Return the figure that each number is nearest to; of several, the first: peaks, the end, predictions.

    The process, which is what NVIDIA's tools show, is the reserved memory and the CUDA context of the card; without
    a card it is not known.
    """
    found = []
    candidates = list(_candidates(figures, card))
    for one in observed:
        best = min(candidates, key=lambda candidate: abs(candidate.distance(one)))
        found.append(Nearest(one, best.name, best.when, best.low, best.high, best.distance(one)))
    return tuple(found)


def _candidates(figures: Sequence[FigureRow], card: CardPrediction | None) -> Iterator[_Candidate]:
    for when in ("peak", "end"):
        for row in figures:
            value = row.peak_bytes if when == "peak" else row.end_bytes
            if value is not None:
                yield _Candidate(row.name, when, value, value)
                if row.name == "reserved" and card is not None:
                    low, high = _context(card)
                    yield _Candidate("process", when, value + low, value + high)
    for row in figures:
        if row.predicted is not None:
            low, high = row.predicted.low_bytes, row.predicted.high_bytes
            yield _Candidate(row.name, "predicted peak", low, high)


def _context(card: CardPrediction) -> tuple[int, int]:
    """Return the bytes of a process beside torch's allocator."""
    return (
        card.process.low_bytes - card.reserved.low_bytes,
        card.process.high_bytes - card.reserved.high_bytes,
    )
