"""Grid: a profile's blocks of axes, expanded into cells. Pure.

A `Cell` says what is run, by content: two profiles that ask for the same work have the same cell.
Its replicate r runs with `seed + r`; a record's identity is (cell_id, replicate, repeat).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from bench.errors import ProfileError, nearest_name
from bench.profile import (
    REQUIRED_AXES,
    Frozen,
    GridBlock,
    LoraSettings,
    Malloc,
    Method,
    Profile,
    parse_selection,
    resolve_settings,
)
from bench.workload import DataSource, ModelSource

CELL_ID_DIGITS = 12
# Axes that are not fields of TrainingArguments.
OWN_AXES = ("max_length", "train_size", "padding", "attn_implementation", "method", "malloc")

# Settings that are a number in the optimizer's arithmetic and move no cost: runs that differ in them
# alone are runs of one cell. Whatever else tells cells apart splits them into groups.
COSTLESS = frozenset(
    {
        "learning_rate",
        "lr_scheduler_type",
        "lr_scheduler_kwargs",
        "warmup_ratio",
        "warmup_steps",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "data_seed",
    }
)


class Axis(Frozen):
    """One axis of a grid: its name and its values in the order of the profile."""

    name: str
    values: tuple[Any, ...]


class Cell(Frozen):
    """One point of the grid: a complete fine-tune, named by the content of all that decides it."""

    model: ModelSource
    data: DataSource
    max_length: int
    train_size: int
    padding: str
    attn_implementation: str
    training: tuple[tuple[str, str], ...]  # name and value as JSON text: hashable, whatever it is
    method: Method = "full"
    lora: LoraSettings | None = None  # where the method is LoRA, and only there
    malloc: Malloc = "default"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the training settings, fields of `transformers.TrainingArguments`, by name."""
        return {name: json.loads(value) for name, value in self.training}

    @property
    def seed(self) -> int:
        """Return the seed of replicate 0."""
        return int(self.settings["seed"])

    @property
    def per_device_train_batch_size(self) -> int:
        """Return the batch size, in documents."""
        return int(self.settings["per_device_train_batch_size"])

    @property
    def documents_a_step(self) -> int:
        """Return how many documents an optimizer step takes: the accumulated batches."""
        accumulated = int(self.settings.get("gradient_accumulation_steps", 1))
        return self.per_device_train_batch_size * accumulated

    @property
    def facets(self) -> dict[str, Any]:
        """Return all that tells cells apart, by the name a table has for it; each value is plain.

        Axes and training settings have their own names; the rest of the workload comes after.
        """
        data = self.data.model_dump(mode="json", exclude={"source"})
        workload = {
            "model": self.model.source.reference,
            "model revision": self.model.source.revision,
            "weights": self.model.weights,
            "tokenizer revision": self.model.tokenizer.revision,
            "dataset": self.data.source.reference,
            "dataset revision": self.data.source.revision,
            **{f"config.{name}": value for name, value in self.model.config},
            **{name: _plain(value) for name, value in data.items()},
        }
        own = {name: getattr(self, name) for name in OWN_AXES}
        settings = {name: _plain(value) for name, value in self.settings.items()}
        return workload | settings | self._lora_facets | own

    @property
    def _lora_facets(self) -> dict[str, Any]:
        """Return LoRA's settings that are not the default ones.

        So cells of other methods beside such of LoRA differ in `method`, not in six columns.
        """
        chosen = self.lora.model_dump(mode="json", exclude_defaults=True) if self.lora else {}
        return {f"lora.{name}": _plain(value) for name, value in chosen.items()}

    def setting(self, name: str) -> Any:
        """Return an axis of the cell's own or a training setting as it is; None where it has none."""
        return getattr(self, name) if name in OWN_AXES else self.settings.get(name)

    def value(self, axis: str) -> Any:
        """Return this cell's value on an axis, None where it has none."""
        return self.facets.get(axis)

    @cached_property
    def cell_id(self) -> str:
        """Return the hash of the cell's content: revisions, axes and settings, but no paths."""
        identity = self.model_dump(mode="json")
        del identity["model"]["weights_format"]  # the files' hash says what was read
        if self.method == "full":  # cells had no method once: their names stay
            del identity["method"]
        if self.malloc == "default":  # and no malloc
            del identity["malloc"]
        if self.lora is None:
            del identity["lora"]
        for part in (
            identity["model"]["source"],
            identity["model"]["tokenizer"],
            identity["data"]["source"],
        ):
            del part["reference"], part["location"], part["kind"]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:CELL_ID_DIGITS]


class Grid(Frozen):
    """The cells of a profile in the order of its blocks, and the axes they vary on."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    def only(self, selection: Mapping[str, Any], *, option: str = "--only") -> Grid:
        """Return the part of the grid whose cells have these axis values; raises ProfileError."""
        for name, value in selection.items():
            axis = next((axis for axis in self.axes if axis.name == name), None)
            if axis is None:
                names = [axis.name for axis in self.axes]
                raise ProfileError(
                    "not an axis of this grid",
                    where=f"{option} {name}",
                    expected=f"one of {', '.join(names)}",
                    nearest=nearest_name(name, names),
                )
            if value not in map(_plain, axis.values):
                raise ProfileError(
                    "no cell has this value",
                    where=f"{option} {name}",
                    got=repr(value),
                    expected=f"one of {', '.join(map(str, axis.values))}",
                )
        kept = tuple(cell for cell in self.cells if selects(selection, cell))
        if not kept:
            raise ProfileError(
                "no cell has all of these values", where=option, got=repr(dict(selection))
            )
        return Grid(axes=self.axes, cells=kept)


def selects(selection: Mapping[str, Any], cell: Cell) -> bool:
    """Return whether a cell has all the axis values of a selection."""
    return all(cell.value(name) == value for name, value in selection.items())


def _plain(value: Any) -> Any:
    """Return a value that can be compared, sorted and shown: text for lists and tables."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


def kept_cells(profile: Profile, grid: Grid) -> frozenset[Cell]:
    """Return the cells whose checkpoints stay; raises ProfileError for a selection of none."""
    where = "run.keep_checkpoints"
    selections = [parse_selection(text, option=where) for text in profile.run.keep_checkpoints]
    return frozenset(
        cell for selection in selections for cell in grid.only(selection, option=where).cells
    )


def expand(profile: Profile, model: ModelSource, data: DataSource) -> Grid:
    """Return the grid of a profile: the union of its blocks, each cell once."""
    cells: dict[Cell, None] = {}
    values: dict[str, dict[str, Any]] = {}
    for block in profile.grid:
        for point in _points(block):
            cells[_cell(profile, point, model, data)] = None
        for name, options in block.axes.items():
            values.setdefault(name, {}).update({repr(option): option for option in options})
    for name, known in values.items():  # where a block leaves an axis to the profile
        there = [cell.setting(name) for cell in cells]
        known.update({repr(value): value for value in there if value is not None})
    axes = tuple(
        Axis(name=name, values=_ordered(options.values())) for name, options in values.items()
    )
    return Grid(axes=axes, cells=tuple(cells))


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


def _cell(profile: Profile, point: Mapping[str, Any], model: ModelSource, data: DataSource) -> Cell:
    """Return the cell at a point: the profile's settings, with the axes' values over them."""
    own = {name: point.get(name, getattr(profile, name, None)) for name in OWN_AXES}
    axes = {name: value for name, value in point.items() if name not in OWN_AXES}
    settings = resolve_settings(profile.training | axes)
    training = tuple(
        sorted((name, json.dumps(value, sort_keys=True)) for name, value in settings.items())
    )
    lora = profile.lora if own["method"] == "lora" else None
    return Cell(model=model, data=data, training=training, lora=lora, **own)


def _ordered(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return axis values in rising order where they are numbers, else as the profile has them."""
    options = list(values)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return tuple(sorted(options)) if numbers else tuple(options)


def axis_order(names: Iterable[str]) -> list[str]:
    """Return axis names in the order tables show them: the three main ones, then by name."""
    rest = set(names)
    return [name for name in REQUIRED_AXES if name in rest] + sorted(rest - set(REQUIRED_AXES))
