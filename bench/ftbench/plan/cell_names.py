"""The axes that name a cell among others: in a factorial grid all that vary, in a star those off its centre."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ftbench.plan.cell import Cell

# A grid with fewer varying axes is named in full: its names are short.
_FEW_AXES = 4


def naming_axes(cells: Sequence[Cell], axes: Sequence[str]) -> Callable[[Cell], tuple[str, ...]]:
    """Return the axes, of those given, whose values name a cell among `cells`.

    If all cells differ from one of them in one axis at most, that one is the centre of a star: every other cell is
    named by the axis in which it differs, and the centre by none. A single cell is named by all axes.
    """
    values = {cell.cell_id: tuple(map(repr, map(cell.value, axes))) for cell in cells}
    points = list(values.values())
    varying = [i for i in range(len(axes)) if len({point[i] for point in points}) > 1]
    if len(varying) < _FEW_AXES:
        return lambda cell: tuple(axes)
    usual = tuple(
        Counter(point[i] for point in points).most_common(1)[0][0] for i in range(len(axes))
    )

    def differing(point: Sequence[str]) -> tuple[str, ...]:
        return tuple(axes[i] for i in varying if point[i] != usual[i])

    if usual in points and all(len(differing(point)) <= 1 for point in points):
        return lambda cell: differing(tuple(map(repr, map(cell.value, axes))))
    named = tuple(axes[i] for i in varying)
    return lambda cell: named
