"""Baseline: what the cells of a profile needed of memory when a person accepted it.

Cells that need the same memory (another seed, learning rate, ...) are one. What legitimately moves bytes stands
beside the figures: the versions of the libraries, the architecture of each card and the kernels of attention.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, model_validator

from ftbench.base.frozen import FrozenModel, NonNegativeInt, PositiveInt
from ftbench.gating.places import CellKey, Place
from ftbench.plan.groups import CellShape, settings_key
from ftbench.plan.scores import ACCURACY
from ftbench.records.prediction import AttentionKernel, MemoryBreakdown, Moment, Part, Verdict

_ATTENTION = "_scaled_dot_product_"
MAX_FIGURE_BYTES = 2**50  # 1 PiB, which no card has
Bytes = Annotated[StrictInt, Field(ge=0, le=MAX_FIGURE_BYTES)]
SlopeAxis = Literal["max_length", "per_device_train_batch_size"]


class CardBytes(FrozenModel):
    """What a cell needs of one card: requested is what gates, the others depend on order as well."""

    requested_bytes: Bytes
    allocated_bytes: Bytes
    reserved_bytes: Bytes
    verdict: Verdict

    @model_validator(mode="after")
    def _in_order(self) -> CardBytes:
        """Refuse figures that no allocator has: each peak is at least as large as the one before."""
        if not self.requested_bytes <= self.allocated_bytes <= self.reserved_bytes:
            raise ValueError("requested, allocated and reserved bytes must rise")
        return self


class CellBytes(FrozenModel):
    """A cell's peak of what tensors ask for, and what it needs of each card, by the card's name.

    Of a test's steps there are also the number of storages at the peak, for each of which a card rounds up, and the
    bytes by which the memory that is kept grows over the last steps. None if it is not known: older baselines,
    cells of a profile.
    """

    cell: CellKey
    tensors_bytes: Bytes
    live_blocks: Bytes | None = None
    growth_bytes: Bytes | None = None
    cards: dict[str, CardBytes] = Field(default_factory=dict)


class Slope(FrozenModel):
    """How a peak rises along one axis, from one cell to the next at a fixed value of the other axis.

    `bytes_per_unit` is per sample along the batch, and per token (of all samples) along the length.
    """

    axis: SlopeAxis
    fixed: PositiveInt
    low: PositiveInt
    high: PositiveInt
    bytes_per_unit: float

    @property
    def edge(self) -> tuple[SlopeAxis, int, int, int]:
        """Return between which cells it is: what tells the slopes of a group apart."""
        return self.axis, self.fixed, self.low, self.high


class LargestFit(FrozenModel):
    """The largest batch that certainly fits on a card at one length; 0 if none does."""

    gpu: str
    max_length: PositiveInt
    batch: NonNegativeInt


class Group(FrozenModel):
    """Cells that differ in length, batch and training examples only; `settings` is what tells groups apart.

    `slopes` are along the edge of the grid. `reference` names the cell whose `moment` and `parts` these are:
    the largest.
    """

    settings: dict[str, Any]
    cells: tuple[CellBytes, ...]
    slopes: tuple[Slope, ...] = ()
    largest: tuple[LargestFit, ...] = ()
    reference: CellKey
    moment: Moment
    parts: tuple[Part, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Group:
        """Refuse two figures of one thing, as a careless merge of two files leaves them."""
        _once("cell", (one.cell for one in self.cells))
        _once("slope", (one.edge for one in self.slopes))
        _once("largest batch", ((one.gpu, one.max_length) for one in self.largest))
        _once("part", (one.name for one in self.parts))
        for part in self.parts:
            if not all(0 <= nbytes <= MAX_FIGURE_BYTES for nbytes in part.nbytes.values()):
                raise ValueError(f"not a number of bytes: {part.name}")
        return self

    @property
    def by_cell(self) -> dict[CellKey, CellBytes]:
        """Return the figures of each cell, in their order."""
        return {one.cell: one for one in self.cells}

    @property
    def breakdown(self) -> MemoryBreakdown:
        """Return the reference cell's parts."""
        return MemoryBreakdown(moment=self.moment, parts=self.parts)

    def without(self, left_out: Collection[CellKey]) -> Group:
        """Return the group without these cells, and without the largest batch of a length that none has."""
        cells = tuple(one for one in self.cells if one.cell not in left_out)
        lengths = {one.cell.max_length for one in cells if isinstance(one.cell, CellShape)}
        largest = tuple(one for one in self.largest if one.max_length in lengths)
        return self.model_copy(update={"cells": cells, "largest": largest})

    @property
    def attention(self) -> tuple[str, ...]:
        """Return the fused kernels of attention that the reference cell runs."""
        found = (part.operator for part in self.parts if _ATTENTION in part.operator)
        return tuple(sorted(set(found)))


class SeedScore(FrozenModel):
    """The score that one seed's training came to, and its standard error over the evaluation examples, if known."""

    value: float
    standard_error: float | None = None


class MeasuredCell(FrozenModel):
    """What runs of a cell measured: of each figure one value per run, and one score per seed, by its name."""

    settings: dict[str, Any]
    cell: CellKey
    figures: dict[str, tuple[Annotated[float, Field(ge=0)], ...]]
    score: str = ACCURACY.name
    scores: dict[str, SeedScore]


class Measured(FrozenModel):
    """The runs of cells on one machine.

    `machine` and `workload` have what they depend on, as in `ftbench.gating.measured_runs.Runs`.
    """

    machine: dict[str, str]
    workload: dict[str, Any]
    cells: tuple[MeasuredCell, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Measured:
        _once("measured cell", (Place(one.settings, one.cell) for one in self.cells))
        return self


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

    @model_validator(mode="after")
    def _each_once(self) -> Baseline:
        _once("group", (settings_key(one.settings) for one in self.groups))
        return self

    def group(self, settings: Mapping[str, Any]) -> Group | None:
        """Return the group with these settings; None if there is none."""
        return next((one for one in self.groups if one.settings == settings), None)

    def without(self, left_out: Collection[Place]) -> Baseline:
        """Return the baseline without these cells, and without groups that have no others."""
        found = (
            group.without({one.cell for one in left_out if one.settings == group.settings})
            for group in self.groups
        )
        return self.model_copy(update={"groups": tuple(group for group in found if group.cells)})


def _once(what: str, keys: Iterable[object]) -> None:
    seen: set[object] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the same {what} twice: {key}")
        seen.add(key)
