"""Probes of the batch search: whether two optimizer steps at a batch size stay within a memory limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.records.record import SCHEMA_VERSION, Failure, Status


class BatchProbe(FrozenModel):
    """One probe of the batch search: whether two optimizer steps at a batch size stayed within a memory limit.

    `fits` is None if the probe failed for a reason other than memory. `limit` says that the limit was
    `enforced` (by a control group, torch's allocator or the card itself), or why the peak was only compared
    with it afterwards.
    """

    schema_version: StrictInt = SCHEMA_VERSION
    cell: Cell
    batch: Annotated[int, Field(gt=0)]
    limit_bytes: int
    limit: str
    status: Status
    fits: bool | None
    peak_bytes: int | None
    environment_id: str
    wall_s: float
    failure: Failure | None = None

    @property
    def name(self) -> str:
        """Return the name of the probe's file."""
        return f"{self.cell.cell_id}-{self.limit_bytes}"
