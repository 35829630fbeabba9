"""Baseline: what the cells of a profile needed of memory when a person accepted it.

The file is made for reading in a diff: JSON, sorted, one line a cell and one a part. Cells that memory is
the same in (another seed, learning rate, ...) are one. What legitimately moves bytes stands beside the
figures: the versions of the libraries, the architecture of each card and the kernels of attention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.grid import Grid
from ftbench.plan.groups import common_facets, group_name, groups_of, settings_key
from ftbench.plan.profile import Profile
from ftbench.records.prediction import (
    AttentionKernel,
    MemoryBreakdown,
    Moment,
    Part,
    Predictions,
    Verdict,
)

_ATTENTION = "_scaled_dot_product_"


class CardBytes(FrozenModel):
    """What a cell needs of one card: requested is what gates, the others depend on order as well."""

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    verdict: Verdict


class CellBytes(FrozenModel):
    """A cell's peak of what tensors ask for, and what it needs of each card."""

    tensors_bytes: int
    cards: dict[str, CardBytes] = Field(default_factory=dict)


class Group(FrozenModel):
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
    def breakdown(self) -> MemoryBreakdown:
        """Return the reference cell's parts."""
        return MemoryBreakdown(moment=self.moment, parts=self.parts)

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


class MeasuredCell(FrozenModel):
    """What runs of a cell measured: of each figure a value a run, and an accuracy a seed."""

    figures: dict[str, tuple[float, ...]]
    accuracies: dict[str, float]


class Measured(FrozenModel):
    """The runs of cells on one machine, by group and cell.

    `machine` and `workload` have what they depend on, as in `ftbench.gate.measured_runs.Runs`.
    """

    machine: dict[str, str]
    workload: dict[str, Any]
    cells: dict[str, dict[str, MeasuredCell]]


class Baseline(FrozenModel):
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
            {(settings_key(settings), name) for settings, cells in groups for name in cells}
            for groups in (groups_of(grid.cells), groups_of(grid.cells, chosen))
        )
        found = (
            group.without({name for of, name in there - kept if of == settings_key(group.settings)})
            for group in self.groups
        )
        return self.model_copy(update={"groups": tuple(group for group in found if group.cells)})


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
    name: str, peak_bytes: int, breakdown: MemoryBreakdown, versions: Iterable[tuple[str, str]]
) -> Baseline:
    """Return the baseline of steps that are no cell of a profile: one group with one cell, `step`."""
    group = Group(
        settings={},
        cells={"step": CellBytes(tensors_bytes=peak_bytes)},
        slopes={},
        reference="step",
        moment=breakdown.moment,
        parts=breakdown.parts,
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
    if predicted is None or predicted.breakdown is None:
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
        moment=predicted.breakdown.moment,
        parts=predicted.breakdown.parts,
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
