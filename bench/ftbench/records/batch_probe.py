"""Tries of the batch search: whether two optimizer steps at a batch size kept within a limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.records.record import SCHEMA_VERSION, Failure, Status


class BatchProbe(FrozenModel):
    """One try of the frontier: whether two optimizer steps at a batch size kept within a limit.

    `fits` is None where it ended for another reason than memory. `limit` says how the limit held:
    `enforced` by a control group, by torch's allocator or by the card itself, or why it was only
    judged against the peak afterwards.
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
        """Return the name of the try's file."""
        return f"{self.cell.cell_id}-{self.limit_bytes}"
