"""Fit search: what is asked of a search for the cheapest configuration that fits, and its answer. Plain data."""

from __future__ import annotations

from typing import Any

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.variants import Variant
from ftbench.records.prediction import (
    AttentionKernel,
    CardPrediction,
    PredictedBytes,
    PredictRequest,
    Refused,
    Verdict,
)


class FitRequest(FrozenModel):
    """Asks for the first of these variants that fits on a card; they are in order, the cheapest first.

    The other options are those of `PredictRequest`.
    """

    variants: tuple[Variant, ...]
    gpu: Gpu
    attention: AttentionKernel | None = None
    expandable_segments: bool = False
    processes: int = 1

    def predictions_of(self, *cells: Cell, gpus: tuple[Gpu, ...], largest: bool) -> PredictRequest:
        """Return the request for predictions of cells with the options of this one."""
        return PredictRequest(
            cells=cells,
            gpus=gpus,
            largest_batch=largest,
            attention=self.attention,
            expandable_segments=self.expandable_segments,
            smallest_rank=False,
            processes=self.processes,
        )


class Judged(FrozenModel):
    """A configuration on the card: its cell at a batch size, what it needs, and whether that fits.

    `card` has the figures on the card, which for one that does not fit end at its failure. `needs` is what its
    allocator would reserve on a card of the same kind without a limit. `missing_bytes` is by how much the upper end
    of that exceeds the lower end of what the card has for it; 0 if it fits.
    """

    cell: Cell
    values: tuple[tuple[str, Any], ...]
    departures: tuple[str, ...]
    tensors: PredictedBytes
    card: CardPrediction
    needs: PredictedBytes
    missing_bytes: int

    @property
    def verdict(self) -> Verdict:
        """Return whether it fits."""
        return self.card.verdict


class Neighbour(FrozenModel):
    """A configuration that is cheaper than the answer, and differs from it in one setting."""

    setting: str
    judged: Judged


class FitAnswer(FrozenModel):
    """The cheapest configuration that fits, None if none does, and the cheaper ones beside it.

    Without one, `neighbours` has the configuration that misses the card by least. `tried` configurations of
    `variants` were predicted. `refused` cannot be predicted, each with its reason.
    """

    found: Judged | None
    largest_possible: int | None = None  # the largest batch that fits under some assumptions
    neighbours: tuple[Neighbour, ...] = ()
    tried: int = 0
    variants: int = 0
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
