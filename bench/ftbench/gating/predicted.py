"""Predicted: the baseline that predictions of a grid, or of training steps, amount to. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline import Baseline, CardBytes, CellBytes, Group, LargestFit, Slope
from ftbench.gating.places import NamedSteps, Place
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.grid import Grid
from ftbench.plan.groups import CellGroup, CellShape, common_facets, groups_of
from ftbench.records.prediction import AttentionKernel, CellPrediction, MemoryBreakdown, Predictions

STEP = NamedSteps(name="step")  # of a test, or of a program


@dataclasses.dataclass(frozen=True)
class Selection:
    """The groups of a grid, and what is left of them when only some cells are chosen.

    `workload` is what all cells of the grid have in common and memory may depend on.
    """

    all_groups: tuple[CellGroup, ...]
    groups: tuple[CellGroup, ...]
    workload: Mapping[str, Any]

    @property
    def references(self) -> tuple[str, ...]:
        """Return the ids of the cells whose parts a baseline keeps: the largest chosen one of each group."""
        return tuple(group.first_cells[group.largest].cell_id for group in self.groups)

    @property
    def left_out(self) -> frozenset[Place]:
        """Return the cells of the grid that are not chosen."""
        return _places(self.all_groups) - _places(self.groups)


def _places(groups: Iterable[CellGroup]) -> frozenset[Place]:
    return frozenset(Place(group.settings, shape) for group in groups for shape in group.cells)


def select(grid: Grid, chosen: Collection[Cell] | None = None) -> Selection:
    """Return the groups of a grid, and the part of them that is chosen; None chooses all."""
    groups = groups_of(grid.cells)
    kept = groups
    if chosen is not None:
        chosen = frozenset(chosen)
        kept = tuple(part for group in groups if (part := group.only(chosen)).cells)
    return Selection(groups, kept, common_facets(grid.cells))


@dataclasses.dataclass(frozen=True)
class RefusedGroup:
    """A group with a cell that was not predicted, and why."""

    settings: Mapping[str, Any]
    reason: str


def refused_groups(selection: Selection, predictions: Predictions) -> tuple[RefusedGroup, ...]:
    """Return the chosen groups with cells that were refused, each once."""
    reasons = {one.cell_id: one.reason.partition("\n")[0] for one in predictions.refused}
    found = []
    for group in selection.groups:
        ids = (cell.cell_id for cell in group.first_cells.values())
        if own := [reasons[cell_id] for cell_id in ids if cell_id in reasons]:
            found.append(RefusedGroup(group.settings, own[0]))
    return tuple(found)


def require_all(refused: Sequence[RefusedGroup]) -> None:
    """Raise BaselineError if a group was refused: a baseline has figures of every cell."""
    for one in refused:
        where = ", ".join(f"{name}={value}" for name, value in one.settings.items())
        raise BaselineError(f"not predicted: {one.reason}", where=where or None)


def baseline_of(
    profile: str,
    selection: Selection,
    predictions: Predictions,
    gpus: Sequence[Gpu] = (),
    *,
    attention_kernel: AttentionKernel | None = None,
) -> Baseline:
    """Return what predictions of the chosen cells of a profile say; refused cells are left out.

    The predictions must have the parts of `selection.references`.
    """
    groups = (_group(group, predictions, gpus) for group in selection.groups)
    return Baseline(
        profile=profile,
        versions=versions_of(predictions.versions),
        architectures=architectures_of(gpus),
        attention_kernel=attention_kernel,
        workload=dict(selection.workload),
        groups=tuple(group for group in groups if group is not None),
    )


def architectures_of(gpus: Iterable[Gpu]) -> dict[str, str]:
    """Return the compute capability of each card, by its name."""
    return {
        gpu.name: ".".join(map(str, gpu.compute_capability))
        for gpu in sorted(gpus, key=lambda gpu: gpu.name)
    }


@dataclasses.dataclass(frozen=True)
class Steps:
    """What a trace says of training steps that are no cell of a profile.

    `count` is None for the usual number of steps; `blocks` is the number of storages at the peak.
    """

    peak_bytes: int
    blocks: int
    growth_bytes: int
    count: int | None = None


def baseline_of_steps(
    name: str, found: Steps, breakdown: MemoryBreakdown, versions: Iterable[tuple[str, str]]
) -> Baseline:
    """Return the baseline of steps that are no cell of a profile: one group with one cell."""
    cell = CellBytes(
        cell=STEP,
        tensors_bytes=found.peak_bytes,
        live_blocks=found.blocks,
        growth_bytes=found.growth_bytes,
    )
    return Baseline(
        profile=name,
        versions=versions_of(versions),
        workload=steps_workload(found.count),
        groups=(group_of_steps({}, cell, breakdown),),
    )


def steps_workload(count: int | None) -> dict[str, Any]:
    """Return what a baseline says of the number of traced steps: nothing of the usual number."""
    return {} if count is None else {"steps": count}


def group_of_steps(
    settings: Mapping[str, Any], cell: CellBytes, breakdown: MemoryBreakdown
) -> Group:
    """Return the group of one cell, and the parts of its memory."""
    return Group(
        settings=dict(settings),
        cells=(cell,),
        reference=cell.cell,
        moment=breakdown.moment,
        parts=breakdown.parts,
    )


def versions_of(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return versions without their build (`+cpu`): a trace is the same under each."""
    return {name: version.partition("+")[0] for name, version in sorted(found)}


def _group(group: CellGroup, predictions: Predictions, gpus: Sequence[Gpu]) -> Group | None:
    """Return the figures of a group; None if its largest cell was refused, or its parts are not there."""
    found: dict[CellShape, CellBytes] = {}
    for shape, cell in group.first_cells.items():
        predicted = predictions.of(cell.cell_id)
        if predicted is not None:
            found[shape] = _cell_bytes(shape, predicted)
    predicted = predictions.of(group.first_cells[group.largest].cell_id)
    if predicted is None or predicted.breakdown is None:
        return None
    return Group(
        settings=dict(group.settings),
        cells=tuple(found.values()),
        slopes=tuple(_slopes(found)),
        largest=tuple(_largest_fits(group, predictions, gpus)),
        reference=group.largest,
        moment=predicted.breakdown.moment,
        parts=predicted.breakdown.parts,
    )


def _cell_bytes(shape: CellShape, predicted: CellPrediction) -> CellBytes:
    return CellBytes(
        cell=shape, tensors_bytes=predicted.tensors.value_bytes, cards=cards_of(predicted)
    )


def cards_of(predicted: CellPrediction) -> dict[str, CardBytes]:
    """Return what a cell needs of each card, by the card's name."""
    return {
        card.gpu: CardBytes(
            requested_bytes=card.requested.value_bytes,
            allocated_bytes=card.allocated.value_bytes,
            reserved_bytes=card.reserved.value_bytes,
            verdict=card.verdict,
        )
        for card in predicted.cards
    }


def _largest_fits(
    group: CellGroup, predictions: Predictions, gpus: Sequence[Gpu]
) -> Iterator[LargestFit]:
    """Yield the largest batch that certainly fits, of each card and length."""
    ids = {cell.cell_id for cell in group.first_cells.values()}
    for gpu in gpus:
        own = {
            one.max_length: one.certain
            for one in predictions.largest
            if one.gpu == gpu.name and ids & {one.cell_id, *one.cell_ids}
        }
        for length, batch in own.items():
            yield LargestFit(gpu=gpu.name, max_length=length, batch=batch)


def _slopes(found: Mapping[CellShape, CellBytes]) -> Iterator[Slope]:
    """Yield the slopes between the two largest batches of each length, and the two largest lengths of each batch.

    Of cells that differ in training examples alone, the one with the most stands for all.
    """
    peaks = {
        (shape.max_length, shape.per_device_train_batch_size): one.tensors_bytes
        for shape, one in found.items()
    }
    for length in sorted({length for length, _ in peaks}):
        batches = sorted(batch for other, batch in peaks if other == length)
        for low, high in list(pairwise(batches))[-1:]:
            per_sample = (peaks[length, high] - peaks[length, low]) / (high - low)
            yield Slope(
                axis="per_device_train_batch_size",
                fixed=length,
                low=low,
                high=high,
                bytes_per_unit=round(per_sample, 3),
            )
    for batch in sorted({batch for _, batch in peaks}):
        lengths = sorted(length for length, other in peaks if other == batch)
        for low, high in list(pairwise(lengths))[-1:]:
            per_token = (peaks[high, batch] - peaks[low, batch]) / ((high - low) * batch)
            yield Slope(
                axis="max_length",
                fixed=batch,
                low=low,
                high=high,
                bytes_per_unit=round(per_token, 3),
            )
