"""Programs: training loops of the user's own, each named by `FILE.py:FACTORY`, and a grid of its arguments.

A factory is a function that builds model, optimizer and batch on the device that it is given, and returns the
function that runs one step. Its other arguments come from `--arg NAME=VALUE`; a list is an axis of the grid.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ftbench.base.errors import ProfileError, nearest_name
from ftbench.base.frozen import FrozenModel, Name, PositiveInt
from ftbench.plan.cell import CELL_ID_DIGITS, plain_value
from ftbench.plan.content import nearest_path
from ftbench.plan.grid import MOST_CELLS, Axis, Grid, refuse_other_values
from ftbench.plan.profile_file import parse_value

OPTION = "--arg"
NUM_PROCESSES = "num_processes"  # the axis of the number of GPUs, one process each
_PROGRAM = re.compile(r"(?P<file>.+\.py)(:(?P<factory>.*))?", re.DOTALL)


class Program(FrozenModel):
    """A function in a Python file; the file's path is relative to the current folder, with slashes."""

    file: Name
    factory: Name

    @property
    def name(self) -> str:
        """Return the program as the command line names it: `FILE.py:FACTORY`."""
        return f"{self.file}:{self.factory}"

    @property
    def dotted(self) -> str:
        """Return a name for files, as Python writes a function of a module: `folder.file.factory`."""
        parts = [part for part in Path(self.file).with_suffix("").parts if part.strip("./")]
        return ".".join((*parts, self.factory))


class ProgramCell(FrozenModel):
    """A program with one set of arguments: each has its name, and its value as JSON text, which is hashable.

    `steps` is the number of traced steps; None is the tracer's own. `num_processes` is that of a run on several
    GPUs, of which one process is traced; None is no process group.
    """

    program: Program
    arguments: tuple[tuple[Name, str], ...] = ()
    steps: PositiveInt | None = None
    num_processes: PositiveInt | None = None

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Return the arguments by name, in the order in which they were given."""
        return {name: json.loads(value) for name, value in self.arguments}

    def value(self, axis: str) -> Any:
        """Return an argument as a plain value, or the number of processes; None if it is not given."""
        return self.num_processes if axis == NUM_PROCESSES else plain_value(self.values.get(axis))

    @property
    def name(self) -> str:
        """Return the program and its arguments as one text: `train.py:factory(batch=8)`."""
        called = f"{self.program.name}({', '.join(f'{k}={v!r}' for k, v in self.values.items())})"
        return f"{called} in {self.num_processes} processes" if self.num_processes else called

    @cached_property
    def cell_id(self) -> str:
        """Return the hash of the program's name, its arguments in any order, steps, processes; not of its code."""
        identity: tuple[Any, ...] = (self.program.name, sorted(self.arguments), self.steps)
        if self.num_processes is not None:
            identity = (*identity, self.num_processes)
        text = json.dumps(identity, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:CELL_ID_DIGITS]


class ProgramGrid(FrozenModel):
    """All combinations of a program's arguments, the last one varying fastest."""

    program: Program
    axes: tuple[Axis, ...]
    cells: tuple[ProgramCell, ...]

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Return the names of the arguments in the order in which they were given."""
        return tuple(axis.name for axis in self.axes)

    def only(self, selection: Mapping[str, Any], *, option: str = "--only") -> ProgramGrid:
        """Return the part of the grid whose cells have these arguments; raises ProfileError if there is none."""
        plain = {name: plain_value(value) for name, value in selection.items()}
        refuse_other_values(self.axes, plain, option=option)
        cells = (one for one in self.cells if all(one.value(n) == v for n, v in plain.items()))
        return self.model_copy(update={"cells": tuple(cells)})


# What commands before a run work on.
AnyGrid = Grid | ProgramGrid


def is_program(reference: str) -> bool:
    """Return whether a subject on the command line is a program, not a profile."""
    return _PROGRAM.fullmatch(reference) is not None


def parse_program(reference: str) -> Program:
    """Return the program that `FILE.py:FACTORY` names.

    Raises ProfileError if there is no such file, or the factory is not named.
    """
    match = _PROGRAM.fullmatch(reference)
    if match is None:
        raise ProfileError("not a program", got=reference, expected="FILE.py:FACTORY")
    file, factory = Path(match["file"]), match["factory"] or ""
    if not file.is_file():
        raise ProfileError("no such file", where=str(file), nearest=nearest_path(file))
    if not factory.isidentifier():
        functions = function_names(file)
        raise ProfileError(
            "the function that builds the training step is not named",
            where=str(file),
            got=reference,
            expected="FILE.py:FACTORY",
            hint=f"functions of this file: {', '.join(functions)}" if functions else None,
        )
    return Program(file=Path(os.path.relpath(file)).as_posix(), factory=factory)


def function_names(file: Path) -> list[str]:
    """Return the names of a file's own functions, without running it; none if it is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError):
        return []  # the program's own process says what is wrong with it
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def program_grid(
    program: Program,
    assignments: Sequence[str],
    steps: int | None = None,
    num_processes: Sequence[int] = (),
) -> ProgramGrid:
    """Return the grid of `NAME=VALUE` arguments, in which a list is an axis; raises ProfileError.

    Numbers of processes are its first axis.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    if num_processes:
        axes[NUM_PROCESSES] = tuple(num_processes)
    for text in assignments:
        name, values = parse_argument(text)
        if name in axes:
            raise ProfileError(
                "the same argument twice",
                where=f"{OPTION} {name}",
                expected=f"{OPTION} {name}=[...]",
            )
        axes[name] = values
    if (count := math.prod(map(len, axes.values()))) > MOST_CELLS:
        raise ProfileError(
            "too many combinations of arguments",
            where=OPTION,
            got=f"{count:,}",
            expected=f"at most {MOST_CELLS:,}",
        )
    points = (zip(axes, values, strict=True) for values in itertools.product(*axes.values()))
    return ProgramGrid(
        program=program,
        axes=tuple(Axis(name=name, values=values) for name, values in axes.items()),
        cells=tuple(
            ProgramCell(
                program=program,
                num_processes=point.pop(NUM_PROCESSES) if num_processes else None,
                arguments=tuple((name, json.dumps(value)) for name, value in point.items()),
                steps=steps,
            )
            for point in map(dict, points)
        ),
    )


def parse_argument(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return the name of an argument, and its values: those of a list, else one.

    A value is written as in TOML or in Python; a bare word is a text. Raises ProfileError.
    """
    name, separator, written = (part.strip() for part in text.partition("="))
    if not (separator and name.isidentifier()):
        raise ProfileError("not an argument", where=OPTION, got=text, expected="NAME=VALUE")
    where = f"{OPTION} {name}"
    value = _value(written, where)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ProfileError("an axis without values", where=where, got=written)
    if len(set(map(repr, values))) != len(values):
        raise ProfileError("the same value twice", where=where, got=written)
    return name, tuple(values)


def _value(written: str, where: str) -> Any:
    """Return the value of a TOML or Python literal; a bare word is a text."""
    try:
        value = parse_value(written)
    except ProfileError as error:
        error.hint = 'texts in a list have quotes: ["a", "b"]' if written[:1] == "[" else None
        value = _python_value(written, error.at(where))
    if value == written:
        value = _python_value(written, None)
    try:
        json.dumps(value)
    except TypeError:
        raise ProfileError(
            "not a value that an argument can have",
            where=where,
            got=written,
            expected="a number, a truth value, a text, or a list of these",
        ) from None
    return value


def _python_value(written: str, refused: ProfileError | None) -> Any:
    """Return the value of a Python literal; if it is none, the text itself, unless TOML `refused` that."""
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if refused is not None:
            raise refused from None
        return written


def require_arguments(
    program: Program, given: Sequence[str], accepted: Sequence[str], required: Sequence[str]
) -> None:
    """Raise ProfileError if a factory does not take an argument that is given, or needs one that is not.

    `accepted` are the names that it takes, `required` those of them that have no default.
    """
    for name in given:
        if name not in accepted:
            raise ProfileError(
                "the factory has no such argument",
                where=f"{OPTION} {name}",
                got=program.name,
                expected=f"one of {', '.join(accepted)}" if accepted else "no arguments",
                nearest=nearest_name(name, accepted),
            )
    for name in required:
        if name not in given:
            raise ProfileError(
                "the factory needs an argument that is not given",
                where=program.name,
                got=", ".join(given) or "no arguments",
                expected=f"{OPTION} {name}=...",
            )
