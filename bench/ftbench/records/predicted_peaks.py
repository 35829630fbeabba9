"""Predicted peaks: what was predicted of a cell, beside what was measured."""

from __future__ import annotations

from pydantic import Field

from ftbench.base.frozen import FrozenModel


class PredictedPeaks(FrozenModel):
    """The predicted memory of the cell on its device; on the CPU, tensors only."""

    tensors_bytes: int = Field(
        description="Bytes that tensors ask for at the peak, of the rank that needs most."
    )
    rank_tensors_bytes: tuple[int, ...] = Field(
        (), description="The same of each rank, if all are known."
    )
    allocated_bytes: int | None = Field(
        None, description="Bytes that torch's allocator would give to tensors on the card."
    )
    reserved_bytes: int | None = Field(
        None, description="Bytes that torch's allocator would take from the card's driver."
    )
