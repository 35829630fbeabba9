"""Baseline: what the cells of a profile needed of memory when a person accepted it.

The file is made for reading in a diff: JSON, sorted, one line a cell and one a part. Cells that memory is
the same in (another seed, learning rate, ...) are one. What legitimately moves bytes stands beside the
figures: the versions of the libraries, the architecture of each card and the kernels of attention.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench.errors import BaselineError
from bench.gpus import Gpu
from bench.grid import COSTLESS, Cell, Grid
from bench.prediction import (
    AttentionKernel,
    Makeup,
    MarkName,
    Moment,
    Part,
    Predictions,
    Verdict,
)
from bench.profile import Frozen, Profile

SCHEMA_VERSION: Literal[1] = 1
FOLDER = Path("reports") / "baselines"
# Far above any real file: a larger one is not read into memory.
MAX_BYTES = 64 * 2**20
_SHAPE = ("max_length", "per_device_train_batch_size", "train_size")
_NOT_MEMORY = frozenset({*COSTLESS, "seed", "malloc"})
# A setting that baselines and runs of before do not name had this value then.
_UNSAID = frozenset({("malloc", "default")})
# Names of what has a revision beside it: where it was read from is no part of what it is.
_NAMES = frozenset({"model", "dataset"})
_ATTENTION = "_scaled_dot_product_"


class CardBytes(Frozen):
    """What a cell needs of one card: requested is what gates, the others depend on order as well."""

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    verdict: Verdict


class CellBytes(Frozen):
    """A cell's peak of what tensors ask for, and what it needs of each card."""

    tensors_bytes: int
    cards: dict[str, CardBytes] = Field(default_factory=dict)


class Group(Frozen):
    """Cells that differ in length, batch and documents only; `settings` is what tells groups apart.

    `slopes` are differences of peaks along the grid's edge, in bytes a sample and a token; `largest`
    has, by card and length, the largest batch that fits whatever is unknown. `reference` names the cell
    whose `moment` and `parts` these are: the largest.
    """

    settings: dict[str, Any]
    cells: dict[str, CellBytes]
    slopes: dict[str, float]
    largest: dict[str, dict[str, int]] = Field(default_factory=dict)
    reference: str
    moment: Moment
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Return what tells this group apart, in words; empty for the only one."""
        return group_name(self.settings)

    @property
    def makeup(self) -> Makeup:
        """Return the reference cell's parts."""
        return Makeup(moment=self.moment, parts=self.parts)

    def without(self, names: Collection[str]) -> Group:
        """Return the group without these cells, and without the largest batch of a length that none has."""
        cells = {name: cell for name, cell in self.cells.items() if name not in names}
        largest = {
            card: {
                length: batch
                for length, batch in sizes.items()
                if any(name.startswith(f"{length}, ") for name in cells)
            }
            for card, sizes in self.largest.items()
        }
        return self.model_copy(update={"cells": cells, "largest": largest})

    @property
    def attention(self) -> tuple[str, ...]:
        """Return the fused kernels of attention that the reference cell runs."""
        found = (part.operator for part in self.parts if _ATTENTION in part.operator)
        return tuple(sorted(set(found)))


class MeasuredCell(Frozen):
    """What runs of a cell measured: of each figure a value a run, and an accuracy a seed."""

    figures: dict[str, tuple[float, ...]]
    accuracies: dict[str, float]


class Measured(Frozen):
    """The runs of cells on one machine, by group and cell.

    `machine` and `workload` have what they depend on, as in `bench.analysis.measured.Runs`.
    """

    machine: dict[str, str]
    workload: dict[str, Any]
    cells: dict[str, dict[str, MeasuredCell]]


class Baseline(Frozen):
    """All groups of a profile, and what they were predicted with and for.

    `workload` is what all cells have in common and memory may depend on; `architectures` has the compute
    capability of each card.
    """

    profile: str
    versions: dict[str, str]
    architectures: dict[str, str] = Field(default_factory=dict)
    attention_kernel: AttentionKernel | None = None
    workload: dict[str, Any]
    groups: tuple[Group, ...]
    measured: Measured | None = None

    def group(self, settings: Mapping[str, Any]) -> Group | None:
        """Return the group with these settings; None where there is none."""
        return next((one for one in self.groups if one.settings == settings), None)

    def only(self, grid: Grid, chosen: Collection[Cell]) -> Baseline:
        """Return the baseline without the cells of a grid that are not chosen."""
        there, kept = (
            {(_dump(settings), name) for settings, cells in groups for name in cells}
            for groups in (groups_of(grid.cells), groups_of(grid.cells, chosen))
        )
        found = (
            group.without({name for of, name in there - kept if of == _dump(group.settings)})
            for group in self.groups
        )
        return self.model_copy(update={"groups": tuple(group for group in found if group.cells)})


def groups_of(
    cells: Iterable[Cell], chosen: Collection[Cell] | None = None
) -> list[tuple[dict[str, Any], dict[str, Cell]]]:
    """Return (what tells the group apart, its cells by name), the smallest cell first, for each group.

    Cells that differ in a seed or in what costs nothing are one: the first stands for them. With `chosen`
    only these are there, under the names that they have among all.
    """
    found = []
    for settings, own in _grouped(list(cells)):
        named: dict[str, Cell] = {}
        for cell, name in _names(own):
            if chosen is None or cell in chosen:
                named.setdefault(name, cell)
        if named:
            found.append((settings, named))
    return found


def _grouped(
    cells: Sequence[Cell], left_out: Collection[str] = _NOT_MEMORY
) -> list[tuple[dict[str, Any], list[Cell]]]:
    facets = [_facets(cell, left_out) for cell in cells]
    differing = _differing(facets)
    found: dict[str, tuple[dict[str, Any], list[Cell]]] = {}
    for cell, facet in zip(cells, facets, strict=True):
        settings = {name: facet.get(name) for name in differing}
        found.setdefault(_dump(settings), (settings, []))[1].append(cell)
    return [pair for _, pair in sorted(found.items())]


def group_name(settings: Mapping[str, Any]) -> str:
    """Return what tells a group apart, in words; empty for the only one."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _facets(cell: Cell, left_out: Collection[str]) -> dict[str, Any]:
    names = {*_SHAPE, *_NAMES, *left_out}
    return {
        name: value
        for name, value in cell.facets.items()
        if name not in names and (name, value) not in _UNSAID
    }


def common_facets(cells: Sequence[Cell], left_out: Collection[str] = _NOT_MEMORY) -> dict[str, Any]:
    """Return what all cells have in common, but for length, batch, documents and what is left out."""
    facets = [_facets(cell, left_out) for cell in cells]
    differing = set(_differing(facets))
    first = facets[0] if facets else {}
    return {n: first[n] for n in sorted(first) if n not in differing and first[n] is not None}


def _differing(facets: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted(set().union(*facets))
    return [name for name in names if len({_dump(one.get(name)) for one in facets}) > 1]


def names_of(
    cells: Iterable[Cell], left_out: Collection[str] = _NOT_MEMORY
) -> dict[str, tuple[str, str]]:
    """Return the names of each cell's group and of its own in it, by its id."""
    return {
        cell.cell_id: (group_name(settings), name)
        for settings, own in _grouped(list(cells), left_out)
        for cell, name in _names(own)
    }


def _names(cells: Sequence[Cell]) -> Iterator[tuple[Cell, str]]:
    """Yield cells with their names, by length and batch, and by documents where those are what differs."""
    several = len(set(map(_shape, cells))) > len({_shape(cell)[:2] for cell in cells})
    for cell in sorted(cells, key=_shape):
        name = f"length {cell.max_length}, batch {cell.per_device_train_batch_size}"
        yield cell, name + (f", documents {cell.train_size}" if several else "")


def _shape(cell: Cell) -> tuple[int, int, int]:
    return cell.max_length, cell.per_device_train_batch_size, cell.train_size


def references(grid: Grid, chosen: Collection[Cell] | None = None) -> tuple[str, ...]:
    """Return the ids of the cells whose parts a baseline keeps: the largest of each group's (chosen) cells."""
    return tuple(_reference(cells)[1].cell_id for _, cells in groups_of(grid.cells, chosen))


def _reference(cells: Mapping[str, Cell]) -> tuple[str, Cell]:
    return max(
        cells.items(), key=lambda one: one[1].max_length * one[1].per_device_train_batch_size
    )


def baseline_of(
    profile: Profile,
    grid: Grid,
    predictions: Predictions,
    gpus: Sequence[Gpu] = (),
    *,
    attention_kernel: AttentionKernel | None = None,
    chosen: Collection[Cell] | None = None,
) -> Baseline:
    """Return what predictions of a profile's cells say, of the chosen ones or all; refused are left out.

    The predictions must have the parts of `references(grid, chosen)`.
    """
    groups = [
        _group(settings, cells, predictions, gpus)
        for settings, cells in groups_of(grid.cells, chosen)
    ]
    return Baseline(
        profile=profile.name,
        versions=_versions(predictions.versions),
        architectures={
            gpu.name: ".".join(map(str, gpu.compute_capability))
            for gpu in sorted(gpus, key=lambda gpu: gpu.name)
        },
        attention_kernel=attention_kernel,
        workload=common_facets(grid.cells),
        groups=tuple(group for group in groups if group is not None),
    )


def baseline_of_steps(
    name: str, peak_bytes: int, makeup: Makeup, versions: Iterable[tuple[str, str]]
) -> Baseline:
    """Return the baseline of steps that are no cell of a profile: one group with one cell, `step`."""
    group = Group(
        settings={},
        cells={"step": CellBytes(tensors_bytes=peak_bytes)},
        slopes={},
        reference="step",
        moment=makeup.moment,
        parts=makeup.parts,
    )
    return Baseline(profile=name, versions=_versions(versions), workload={}, groups=(group,))


def _versions(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return versions without their build (`+cpu`): a trace is the same under each."""
    return {name: version.partition("+")[0] for name, version in sorted(found)}


def _group(
    settings: dict[str, Any],
    cells: Mapping[str, Cell],
    predictions: Predictions,
    gpus: Sequence[Gpu],
) -> Group | None:
    found: dict[str, CellBytes] = {}
    for name, cell in cells.items():
        predicted = predictions.of(cell.cell_id)
        if predicted is not None:
            found[name] = CellBytes(
                tensors_bytes=predicted.tensors.value_bytes,
                cards={
                    card.gpu: CardBytes(
                        requested_bytes=card.requested.value_bytes,
                        allocated_bytes=card.allocated.value_bytes,
                        reserved_bytes=card.reserved.value_bytes,
                        verdict=card.verdict,
                    )
                    for card in predicted.cards
                },
            )
    reference, cell = _reference(cells)
    predicted = predictions.of(cell.cell_id)
    if predicted is None or predicted.makeup is None:
        return None
    ids = {cell.cell_id for cell in cells.values()}
    largest: dict[str, dict[str, int]] = {gpu.name: {} for gpu in gpus}
    for one in predictions.largest:
        if ids & {one.cell_id, *one.cell_ids}:
            largest[one.gpu][f"length {one.max_length}"] = one.certain
    return Group(
        settings=settings,
        cells=found,
        slopes=dict(_slopes({name: cells[name] for name in found}, found)),
        largest={name: sizes for name, sizes in largest.items() if sizes},
        reference=reference,
        moment=predicted.makeup.moment,
        parts=predicted.makeup.parts,
    )


def _slopes(
    cells: Mapping[str, Cell], found: Mapping[str, CellBytes]
) -> Iterator[tuple[str, float]]:
    """Yield (name, bytes): between the two largest batches of each length, and lengths of each batch."""
    by_shape = {
        (cell.max_length, cell.per_device_train_batch_size): found[name].tensors_bytes
        for name, cell in cells.items()
    }
    for place, (axis, what) in enumerate((("length", "a sample"), ("batch", "a token"))):
        for held in sorted({shape[place] for shape in by_shape}):
            along = sorted((s[1 - place], s) for s in by_shape if s[place] == held)
            for (low, first), (high, last) in list(pairwise(along))[-1:]:
                delta = by_shape[last] - by_shape[first]
                units = high - low if place == 0 else (high - low) * held
                along_what = ("batch", "length")[place]
                name = f"bytes {what} at {axis} {held}, {along_what} {low} to {high}"
                yield name, round(delta / units, 3)


# The file


def path_of(profile: str) -> Path:
    """Return where a profile's baseline is kept, from the current folder on."""
    return FOLDER / f"{profile}.json"


def write(baseline: Baseline, file: Path) -> None:
    """Write a baseline; raises BaselineError where that is not possible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_text(text_of(baseline), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise BaselineError(f"cannot be written: {error.strerror}", where=str(file)) from error


def read(file: Path) -> Baseline:
    """Return the baseline in a file; raises BaselineError where there is none, or one that is not whole."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BaselineError("too large for a baseline", where=str(file))
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaselineError(
            "there is no baseline", where=str(file), hint="`ftbench baseline write` makes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"cannot be read: {error}", where=str(file)) from error
    known = data.pop("schema_version", None) if isinstance(data, dict) else None
    if known != SCHEMA_VERSION:
        raise BaselineError(
            "not a baseline that this version of ftbench knows",
            where=str(file),
            got=f"schema_version {known}",
            expected=str(SCHEMA_VERSION),
        )
    try:
        for group in data["groups"]:
            group["parts"] = [_part(name, nbytes) for name, nbytes in group["parts"].items()]
        return Baseline.model_validate(data)
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        raise BaselineError(f"not a baseline: {error}", where=str(file)) from error


def _part(name: str, nbytes: dict[MarkName, int]) -> Part:
    role, module, operator, dtype = name.split(" | ")
    return Part(role=role, module=module, operator=operator, dtype=dtype, nbytes=nbytes)


def text_of(baseline: Baseline) -> str:
    """Return a baseline as the text of its file."""
    data = baseline.model_dump(mode="json")
    for group in data["groups"]:
        parts = [Part.model_validate(part) for part in group["parts"]]
        group["parts"] = {part.name: part.nbytes for part in sorted(parts, key=lambda p: p.name)}
        for cell in group["cells"].values():
            if not cell["cards"]:
                del cell["cards"]
    if data["measured"] is None:
        del data["measured"]
    return _lines({"schema_version": SCHEMA_VERSION, **data}) + "\n"


_DEEPEST = 3  # tables further down are a line each


def _lines(data: Any, depth: int = 0) -> str:
    """Return JSON with a line for every figure, and for every table of figures deep inside."""
    inner, indent = " " * (depth + 1), " " * depth
    if isinstance(data, dict) and data and depth <= _DEEPEST:
        items = (f"{inner}{json.dumps(k)}: {_lines(v, depth + 1)}" for k, v in data.items())
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(data, list) and data and depth <= _DEEPEST:
        return "[\n" + ",\n".join(inner + _lines(v, depth + 1) for v in data) + f"\n{indent}]"
    return json.dumps(data)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(value: Any) -> str:
    words = {"True": "on", "False": "off", "None": "default"}
    return words.get(str(value), str(value))
