"""Grid: a profile's blocks of axes, expanded into cells. Pure.

A `Cell` is identified by its content: two profiles that ask for the same work have the same cell.
Replicate r of a cell runs with `seed + r`; a record's identity is (cell_id, replicate, repeat).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell, plain_value, training_of
from ftbench.plan.contradictions import refuse_contradictions
from ftbench.plan.profile import RECIPE, REQUIRED_AXES, GridBlock, Profile, resolve_settings
from ftbench.plan.profile_file import parse_selection
from ftbench.plan.settings import NON_TRAINER_AXES, canonical, setting, without_defaults
from ftbench.plan.sources import DataSource, ModelSource

# A grid of this size takes seconds to plan, and weeks to run.
MOST_CELLS = 20_000


class Axis(FrozenModel):
    """One axis of a grid: its name and its values in the order of the profile."""

    name: str
    values: tuple[Any, ...]


class Grid(FrozenModel):
    """The cells of a profile in the order of its blocks, and the axes they vary on."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Return the names of the axes in the order in which tables show them."""
        return tuple(axis_order(axis.name for axis in self.axes))

    @property
    def most_processes(self) -> int:
        """Return the largest number of processes of a cell."""
        return max((cell.num_processes for cell in self.cells), default=1)

    def only(self, selection: Mapping[str, Any], *, option: str = "--only") -> Grid:
        """Return the part of the grid whose cells have these axis values; raises ProfileError."""
        plain = {name: canonical(name, value) for name, value in selection.items()}
        refuse_other_values(self.axes, plain, option=option)
        kept = tuple(cell for cell in self.cells if selects(selection, cell))
        if not kept:
            raise ProfileError(
                "no cell has all of these values", where=option, got=repr(dict(selection))
            )
        return Grid(axes=self.axes, cells=kept)


def refuse_other_values(axes: Sequence[Axis], selection: Mapping[str, Any], *, option: str) -> None:
    """Raise ProfileError if a selection of plain values names no axis of a grid, or a value that is not on it."""
    for name, value in selection.items():
        axis = next((axis for axis in axes if axis.name == name), None)
        if axis is None:
            names = [axis.name for axis in axes]
            raise ProfileError(
                "not an axis of this grid",
                where=f"{option} {name}",
                expected=f"one of {', '.join(names)}" if names else "no selection",
                nearest=nearest_name(name, names),
            )
        if value not in map(plain_value, axis.values):
            raise ProfileError(
                "no cell has this value",
                where=f"{option} {name}",
                got=repr(value),
                expected=f"one of {', '.join(map(str, axis.values))}",
            )


def selects(selection: Mapping[str, Any], cell: Cell) -> bool:
    """Return whether a cell has all the axis values of a selection."""
    return all(cell.value(name) == canonical(name, value) for name, value in selection.items())


def kept_cells(profile: Profile, grid: Grid) -> frozenset[Cell]:
    """Return the cells whose checkpoints are kept; raises ProfileError for a selection without cells."""
    where = "run.keep_checkpoints"
    selections = [parse_selection(text, option=where) for text in profile.run.keep_checkpoints]
    return frozenset(
        cell for selection in selections for cell in grid.only(selection, option=where).cells
    )


def expand(profile: Profile, model: ModelSource, data: DataSource) -> Grid:
    """Return the grid of a profile: the union of its blocks, each cell once.

    Raises ProfileError for a grid of more than `MOST_CELLS`, before any is made, and for settings that cannot go
    together.
    """
    count = sum(map(_size, profile.grid))
    if count > MOST_CELLS:
        raise ProfileError(
            "more cells than anybody measures",
            where="grid",
            got=f"{count:,}",
            expected=f"at most {MOST_CELLS:,}",
        )
    cells: dict[Cell, None] = {}
    values: dict[str, dict[str, Any]] = {}
    for block in profile.grid:
        for point in _points(block):
            cells[cell_at(profile, point, model, data)] = None
        for name, options in block.axes.items():
            written = (canonical(name, option) for option in options)
            values.setdefault(name, {}).update({repr(option): option for option in written})
    for name, known in values.items():  # a block without this axis takes the profile's value
        of_cells = [cell.setting(name) for cell in cells]
        known.update({repr(value): value for value in of_cells if value is not None})
    axes = tuple(
        Axis(name=name, values=_ordered(options.values())) for name, options in values.items()
    )
    return Grid(axes=axes, cells=tuple(cells))


def on_gpus(profile: Profile, numbers: Sequence[int]) -> Profile:
    """Return a profile whose cells are on each of these numbers of GPUs, one process on each.

    A star is repeated for each number.
    """
    name = "num_processes"
    blocks: list[GridBlock] = []
    for block in profile.grid:
        if block.design == "factorial":
            blocks.append(block.model_copy(update={name: tuple(numbers)}))
            continue
        center = {axis: value for axis, value in block.center.items() if axis != name}
        blocks += [
            block.model_copy(update={name: (number,), "center": center}) for number in numbers
        ]
    return profile.model_copy(update={"grid": tuple(blocks)})


def _size(block: GridBlock) -> int:
    """Return the number of points of one block, without making them."""
    counts = [len(options) for options in block.axes.values()]
    return math.prod(counts) if block.design == "factorial" else sum(counts)


def _points(block: GridBlock) -> Iterator[dict[str, Any]]:
    """Yield the points of one block, as axis values by name."""
    axes = block.axes
    if block.design == "factorial":
        for combination in itertools.product(*axes.values()):
            yield dict(zip(axes, combination, strict=True))
        return
    center = {name: options[0] for name, options in axes.items()} | block.center
    for name, options in axes.items():
        for option in options:
            yield center | {name: option}


def cell_at(
    profile: Profile, point: Mapping[str, Any], model: ModelSource, data: DataSource
) -> Cell:
    """Return the cell at a point: the profile's settings, overridden by the axes' values.

    Raises ProfileError for settings that cannot go together.
    """
    own = {name: point.get(name, getattr(profile, name, None)) for name in NON_TRAINER_AXES}
    axes = {name: value for name, value in point.items() if name not in NON_TRAINER_AXES}
    # A setting at its default value asks for the same run as a setting that is left out.
    settings = without_defaults(resolve_settings(profile.training | axes, data.task), kept=RECIPE)
    lora = profile.lora if own["method"] == "lora" else None
    parallel = None
    if own["num_processes"] > 1:
        parallel = profile.parallel.with_strategy(own["strategy"])
    else:
        own["strategy"] = setting("strategy").default
    cell = Cell(
        model=model,
        data=data,
        training=training_of(settings),
        lora=lora,
        parallel=parallel,
        **own,
    )
    refuse_contradictions(cell)
    return cell


def _ordered(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return axis values in ascending order if all are numbers, else in the profile's order."""
    options = list(values)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return tuple(sorted(options)) if numbers else tuple(options)


def axis_order(names: Iterable[str]) -> list[str]:
    """Return axis names in the order tables show them: the three main ones, then by name."""
    rest = set(names)
    return [name for name in REQUIRED_AXES if name in rest] + sorted(rest - set(REQUIRED_AXES))
