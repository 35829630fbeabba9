"""Places: which cell of which group a figure is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ftbench.base.frozen import FrozenModel, Name
from ftbench.plan.cell import Cell
from ftbench.plan.groups import CellShape, View, groups_of


class NamedSteps(FrozenModel):
    """Training steps that are no cell of a profile: those of a test or of a benchmark."""

    name: Name


CellKey = CellShape | NamedSteps


@dataclasses.dataclass(frozen=True)
class Place:
    """A cell, and the settings that tell its group from the others; empty for the only group."""

    settings: Mapping[str, Any]
    cell: CellKey

    def __hash__(self) -> int:
        """Return the hash of the settings' names and the cell: not every value of a setting has one."""
        return hash((frozenset(self.settings), self.cell))


def places_of(cells: Iterable[Cell], view: View) -> dict[str, Place]:
    """Return the place of each cell, by its id."""
    return {
        cell.cell_id: Place(group.settings, shape)
        for group in groups_of(cells, view)
        for shape, own in group.cells.items()
        for cell in own
    }
