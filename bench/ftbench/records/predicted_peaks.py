"""Predicted peaks: what was predicted of a cell, beside what was measured."""

from __future__ import annotations

from ftbench.base.frozen import FrozenModel


class PredictedPeaks(FrozenModel):
    """The predicted memory of the cell on its device; on the CPU, tensors only.

    `tensors_bytes` are those of the rank that needs most, `rank_tensors_bytes` those of each rank, if all are
    known.
    """

    tensors_bytes: int
    rank_tensors_bytes: tuple[int, ...] = ()
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
