"""Variants: what else the training of a cell could be, from the cheapest to the dearest. Pure.

A variant has a number of GPUs, a strategy, and a value of every axis that is searched. Settings that change the
trained model (the method, the optimizer, a type) are departures from the profile; checkpointing and sharding are
not, but cost time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from ftbench.base.errors import ProfileError
from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.grid import Axis, Grid, cell_at
from ftbench.plan.parallel import Strategy
from ftbench.plan.profile import GridBlock, Profile
from ftbench.plan.profile_file import parse_assignment
from ftbench.plan.settings import SHAPE, canonical, setting
from ftbench.plan.training_arguments import check_setting

CHECKPOINTING = "gradient_checkpointing"
PROCESSES = "num_processes"
# From the least communication to the most: DDP sends gradients, ZeRO-1 the updated parameters after them, FSDP
# parameters in both passes.
_STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero1", "fsdp2", "fsdp1")
_DEFAULT_STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp2")


class Variant(FrozenModel):
    """One way to train, at the batch size of the profile: its cell, and its values on the searched axes."""

    cell: Cell
    values: tuple[tuple[str, Any], ...]
    departures: tuple[str, ...]  # axes of the trained model whose value is not the profile's

    @property
    def gpus(self) -> int:
        """Return the number of GPUs."""
        return self.cell.num_processes

    @property
    def rung(self) -> tuple[Any, ...]:
        """Return what variants have in common that train the same model on as many GPUs."""
        of_model = tuple(pair for pair in self.values if is_of_the_model(pair[0]))
        return self.gpus, of_model


def is_of_the_model(name: str) -> bool:
    """Return whether an axis changes the trained model; how processes share it does not."""
    return name not in (PROCESSES, "strategy") and "accuracy" in setting(name).moves


def axes_searched(
    profile: Profile, cell: Cell, over: Sequence[str], gpus: Sequence[int]
) -> tuple[Axis, ...]:
    """Return the axes of a search, each with its values from the cheapest to the dearest; raises ProfileError.

    `over` has axes as `NAME=VALUE,VALUE`. Of an axis that changes the trained model the cell's own value is the
    first, whether it is named or not. Without being named, DDP, FSDP2 and the profile's own strategy are searched,
    and no checkpointing and checkpointing.
    """
    named = dict(_parsed(text) for text in over)
    numbers = tuple(gpus) or (cell.num_processes,)
    strategies = named.pop("strategy", None) or (
        profile.strategy,
        *_DEFAULT_STRATEGIES,
    )
    checkpointing = named.pop(CHECKPOINTING, (False, True))
    axes = [Axis(name=PROCESSES, values=numbers)]
    for name, values in named.items():
        own = (cell.setting(name),) if is_of_the_model(name) else ()
        axes.append(Axis(name=name, values=_distinct(name, (*own, *values))))
    axes.append(Axis(name=CHECKPOINTING, values=_distinct(CHECKPOINTING, sorted(checkpointing))))
    if max(numbers) > 1:
        axes.append(Axis(name="strategy", values=tuple(s for s in _STRATEGIES if s in strategies)))
    return tuple(axes)


def _parsed(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return an axis and its values, from `NAME=VALUE,VALUE` or `NAME=[...]`."""
    name, _, listed = text.partition("=")
    name = name.strip()
    if listed.strip().startswith("["):
        _, values = parse_assignment(text, option="--over")
    else:
        values = [
            parse_assignment(f"{name}={one}", option="--over")[1] for one in listed.split(",")
        ]
    if name in SHAPE or name == PROCESSES:
        raise ProfileError(
            "not an axis of a search",
            where=f"--over {name}",
            hint="the batch size is always searched; --gpus has the numbers of GPUs, and the cell the rest",
        )
    return name, tuple(check_axis(name, value) for value in values)


def check_axis(name: str, value: Any) -> Any:
    """Return an axis's value in the type of its setting; raises ProfileError, also for an unknown axis."""
    where = f"--over {name}"
    if name not in GridBlock.model_fields:
        return check_setting(name, value, where=where, also=GridBlock.model_fields)
    try:
        block = GridBlock.model_validate({**{axis: [1] for axis in SHAPE}, name: [value]})
    except ValidationError as error:
        raise ProfileError(
            "not usable", where=where, got=repr(value), expected=error.errors()[0]["msg"]
        ) from None
    (checked,) = block.axes[name]
    return checked


def _distinct(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    found = {repr(canonical(name, value)): canonical(name, value) for value in values}
    return tuple(found.values())


def variants(
    profile: Profile, grid: Grid, cell: Cell, axes: Sequence[Axis]
) -> tuple[list[Variant], int]:
    """Return the variants of a cell, the cheapest first, and the number of combinations that contradict themselves.

    Cheapest is: fewest GPUs, then fewest departures from the profile, in the order of the axes, then no
    checkpointing, then the least communication.
    """
    at = {axis.name: cell.setting(axis.name) for axis in grid.axes}
    found: dict[Cell, Variant] = {}
    contradicting = 0
    for values in _points(axes):
        try:
            made = cell_at(profile, at | values, cell.model, cell.data)
        except ProfileError:
            contradicting += 1
            continue
        departures = tuple(
            name
            for name, value in values.items()
            if is_of_the_model(name) and canonical(name, value) != cell.setting(name)
        )
        found.setdefault(
            made, Variant(cell=made, values=tuple(values.items()), departures=departures)
        )
    places = {axis.name: {repr(v): i for i, v in enumerate(axis.values)} for axis in axes}

    def cost(one: Variant) -> tuple[Any, ...]:
        ranks = {name: places[name].get(repr(value), 0) for name, value in one.values}
        of_model = [rank for name, rank in ranks.items() if is_of_the_model(name)]
        others = [rank for name, rank in ranks.items() if not is_of_the_model(name)]
        return one.gpus, len(one.departures), of_model, others

    return sorted(found.values(), key=cost), contradicting


def _points(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield the values of each combination; one process has no strategy."""
    for combination in itertools.product(*(axis.values for axis in axes)):
        values = {axis.name: value for axis, value in zip(axes, combination, strict=True)}
        if values[PROCESSES] == 1:
            values.pop("strategy", None)
        yield values


def changes_in_toml(grid: Grid, cell: Cell, chosen: Cell, names: Sequence[str]) -> list[str]:
    """Return the lines of a profile that make of one cell another; those of tables begin with the table's name.

    An axis of the profile's grid is changed there, with one value.
    """
    tables: dict[str, dict[str, Any]] = {"": {}, "[parallel]": {}, "[training]": {}, "[[grid]]": {}}
    on_grid = {axis.name for axis in grid.axes}
    for name in (*names, "per_device_train_batch_size"):
        value = chosen.setting(name)
        if value == cell.setting(name):
            continue
        if name in on_grid:
            tables["[[grid]]"][name] = [value]
        elif name == "strategy":
            tables["[parallel]"][name] = value
        else:
            tables["[training]" if name not in _TOP_LEVEL else ""][name] = value
    lines: list[str] = []
    for table, settings in tables.items():
        if settings:
            lines += [table] * bool(table) + [f"{k} = {_toml(v)}" for k, v in settings.items()]
    return lines


_TOP_LEVEL = frozenset(Profile.model_fields)


def _toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
