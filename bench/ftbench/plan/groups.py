"""Groups of cells that differ only in length, batch and training examples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ftbench.base.frozen import FrozenModel, PositiveInt
from ftbench.plan.cell import Cell
from ftbench.plan.settings import SHAPE, memory_view, setting

# Facets whose revision is a facet of its own: the place that it was read from does not matter.
SOURCE_NAMES = frozenset({"model", "dataset"})
# Reduces a cell's facets to those that separate groups: `memory_view`, or another.
View = Callable[[Mapping[str, Any]], dict[str, Any]]


class CellShape(FrozenModel):
    """The shape of a cell, which identifies it within its group: sequence length and batch size.

    `train_size` is set only if the group has cells of the same length and batch but different training sizes.
    """

    max_length: PositiveInt
    per_device_train_batch_size: PositiveInt
    train_size: PositiveInt | None = None

    @property
    def positions(self) -> int:
        """Return the token positions of one batch."""
        return self.max_length * self.per_device_train_batch_size


@dataclasses.dataclass(frozen=True)
class CellGroup:
    """The cells of a group by shape, the smallest first; `settings` are those that differ between groups.

    Cells that differ only in settings that the view leaves out (for memory: seed, learning rate) share a shape.
    """

    settings: Mapping[str, Any]
    cells: Mapping[CellShape, tuple[Cell, ...]]

    def only(self, chosen: Collection[Cell]) -> CellGroup:
        """Return the group with the chosen cells only; their shapes stay as they are in the whole group."""
        kept = {
            shape: tuple(cell for cell in cells if cell in chosen)
            for shape, cells in self.cells.items()
        }
        return CellGroup(self.settings, {shape: cells for shape, cells in kept.items() if cells})

    @property
    def first_cells(self) -> dict[CellShape, Cell]:
        """Return the first cell of each shape, which represents it."""
        return {shape: cells[0] for shape, cells in self.cells.items()}

    @property
    def largest(self) -> CellShape:
        """Return the shape with the most positions in a batch; of several, the first."""
        return max(self.cells, key=lambda shape: shape.positions)


def groups_of(cells: Iterable[Cell], view: View = memory_view) -> tuple[CellGroup, ...]:
    """Return the groups of cells, in the order of their settings."""
    cells = list(cells)
    facets = [_facets(cell, view) for cell in cells]
    differing = _differing(facets)
    groups: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
    for cell, facet in zip(cells, facets, strict=True):
        settings = {name: facet.get(name, setting(name).default) for name in differing}
        groups.setdefault(settings_key(settings), (settings, []))[1].append(cell)
    return tuple(
        CellGroup(settings, _by_shape(own)) for _, (settings, own) in sorted(groups.items())
    )


def _by_shape(cells: Sequence[Cell]) -> dict[CellShape, tuple[Cell, ...]]:
    several = len(set(map(_shape, cells))) > len({_shape(cell)[:2] for cell in cells})
    by_shape: dict[CellShape, list[Cell]] = {}
    for cell in sorted(cells, key=_shape):
        shape = CellShape(
            max_length=cell.max_length,
            per_device_train_batch_size=cell.per_device_train_batch_size,
            train_size=cell.train_size if several else None,
        )
        by_shape.setdefault(shape, []).append(cell)
    return {shape: tuple(own) for shape, own in by_shape.items()}


def _shape(cell: Cell) -> tuple[int, int, int]:
    return cell.max_length, cell.per_device_train_batch_size, cell.train_size


def _facets(cell: Cell, view: View) -> dict[str, Any]:
    names = {*SHAPE, *SOURCE_NAMES}
    return {name: value for name, value in view(cell.facets).items() if name not in names}


def common_facets(cells: Sequence[Cell], view: View = memory_view) -> dict[str, Any]:
    """Return the view's facets that are equal in all cells, without length, batch and training examples."""
    facets = [_facets(cell, view) for cell in cells]
    differing = set(_differing(facets))
    first = facets[0] if facets else {}
    return {n: first[n] for n in sorted(first) if n not in differing and first[n] is not None}


def _differing(facets: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted(set().union(*facets))
    return [name for name in names if len({settings_key(facet.get(name)) for facet in facets}) > 1]


def settings_key(value: Any) -> str:
    """Return settings as text, equal for equal settings."""
    return json.dumps(value, sort_keys=True)
