"""Groups of cells that differ only in length, batch and training examples, and the names of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ftbench.plan.cell import Cell
from ftbench.plan.settings import SHAPE, memory_view, setting

# Names of what has a revision beside it: where it was read from is no part of what it is.
SOURCE_NAMES = frozenset({"model", "dataset"})
# What of a cell's facets tells groups apart: `memory_view`, or another reduction.
View = Callable[[Mapping[str, Any]], dict[str, Any]]


def groups_of(
    cells: Iterable[Cell], chosen: Collection[Cell] | None = None
) -> list[tuple[dict[str, Any], dict[str, Cell]]]:
    """Return (what tells the group apart, its cells by name), the smallest cell first, for each group.

    Cells that differ only in what memory does not depend on (a seed, the learning rate) share one entry: the
    first stands for them. With `chosen` only these are there, under the names that they have among all.
    """
    found = []
    for settings, own in _grouped(list(cells), memory_view):
        named: dict[str, Cell] = {}
        for cell, name in _names(own):
            if chosen is None or cell in chosen:
                named.setdefault(name, cell)
        if named:
            found.append((settings, named))
    return found


def _grouped(cells: Sequence[Cell], view: View) -> list[tuple[dict[str, Any], list[Cell]]]:
    facets = [_facets(cell, view) for cell in cells]
    differing = _differing(facets)
    found: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
    for cell, facet in zip(cells, facets, strict=True):
        settings = {name: facet.get(name, setting(name).default) for name in differing}
        found.setdefault(settings_key(settings), (settings, []))[1].append(cell)
    return [pair for _, pair in sorted(found.items())]


def group_name(settings: Mapping[str, Any]) -> str:
    """Return what tells a group apart, in words; empty for the only one."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _facets(cell: Cell, view: View) -> dict[str, Any]:
    names = {*SHAPE, *SOURCE_NAMES}
    return {name: value for name, value in view(cell.facets).items() if name not in names}


def common_facets(cells: Sequence[Cell], view: View = memory_view) -> dict[str, Any]:
    """Return what all cells have in common of what matters, but for length, batch and training examples."""
    facets = [_facets(cell, view) for cell in cells]
    differing = set(_differing(facets))
    first = facets[0] if facets else {}
    return {n: first[n] for n in sorted(first) if n not in differing and first[n] is not None}


def _differing(facets: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted(set().union(*facets))
    return [name for name in names if len({settings_key(one.get(name)) for one in facets}) > 1]


def names_of(cells: Iterable[Cell], view: View = memory_view) -> dict[str, tuple[str, str]]:
    """Return the names of each cell's group and of its own in it, by its id."""
    return {
        cell.cell_id: (group_name(settings), name)
        for settings, own in _grouped(list(cells), view)
        for cell, name in _names(own)
    }


def _names(cells: Sequence[Cell]) -> Iterator[tuple[Cell, str]]:
    """Yield cells with their names: length and batch, and training examples if those are what differs."""
    several = len(set(map(_shape, cells))) > len({_shape(cell)[:2] for cell in cells})
    for cell in sorted(cells, key=_shape):
        name = f"length {cell.max_length}, batch {cell.per_device_train_batch_size}"
        yield cell, name + (f", documents {cell.train_size}" if several else "")


def _shape(cell: Cell) -> tuple[int, int, int]:
    return cell.max_length, cell.per_device_train_batch_size, cell.train_size


def settings_key(value: Any) -> str:
    """Return settings as text that is the same for the same settings."""
    return json.dumps(value, sort_keys=True)


def _plain(value: Any) -> str:
    words = {"True": "on", "False": "off", "None": "default"}
    return words.get(str(value), str(value))
