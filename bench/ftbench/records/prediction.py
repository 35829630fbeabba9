"""Prediction: the predicted need of a training step for a card's memory. Plain data.

Every figure is in bytes and states its certainty: `exact` (to the byte, on any card), `simulated` (by the
allocator's own rules, with one assumption for each behaviour that is not documented) or `interval` (cannot
be known beforehand; the middle is a guess). Low and high are bounds over all such assumptions.
"""

from __future__ import annotations

from typing import Literal, get_args

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.programs import Program, ProgramCell
from ftbench.records.kernel_work import KernelWork
from ftbench.records.predicted_allocations import PredictedAllocations
from ftbench.records.token_facts import LengthFacts

Certainty = Literal["exact", "simulated", "interval"]
Verdict = Literal["fits", "does not fit", "too close to call"]
AttentionKernel = Literal["math", "efficient", "flash", "cudnn"]
# Three steps: Adam's state is made at the end of the first, and tensors that a loop keeps from one
# step to the next (the last outputs) affect reserved memory only in the third.
TRACED_STEPS = 3


class PredictedBytes(FrozenModel):
    """A predicted number of bytes, the interval that contains it, and its certainty."""

    value_bytes: int
    low_bytes: int
    high_bytes: int
    certainty: Certainty


class Share(FrozenModel):
    """A part of the peak, by the name of a role, a module, an operator or a line of code."""

    name: str
    nbytes: int


class Moment(FrozenModel):
    """The moment at which the peak is reached."""

    phase: str
    step: int
    module: str
    operator: str


class Composition(FrozenModel):
    """The composition of the peak of live tensors, in four ways, each from the largest part down.

    `lines` are lines of code, each `file:line`; empty if none is known.

    `timeline` has the live bytes over the traced steps, as (event, bytes) at every visible turning point.
    """

    moment: Moment
    roles: tuple[Share, ...]
    modules: tuple[Share, ...]
    operators: tuple[Share, ...]
    lines: tuple[Share, ...] = ()
    timeline: tuple[tuple[int, int], ...] = ()
    phases: tuple[tuple[int, str], ...] = ()


MarkName = Literal[
    "peak",
    "before a step",
    "after forward",
    "after backward",
    "in the optimizer",
    "in evaluation",
    "most",
]
# In order: the peak; the last traced step before it begins, after its forward pass, and after its backward
# pass; the peaks in its optimizer and in evaluation; and the largest size of a part at any time.
MARKS: tuple[MarkName, ...] = get_args(MarkName)


class Part(FrozenModel):
    """The memory of one operator of one module for one kind of tensor, in bytes at each mark.

    `module` names all layers of a stack as one (`layer.*`); `operator` is empty for parameters, gradients
    and optimizer state. Marks at which the part is empty are left out. `source` is the line of code that
    allocated its largest tensor, empty if unknown.
    """

    role: str
    module: str
    operator: str
    dtype: str
    nbytes: dict[MarkName, int]
    source: str = ""

    @property
    def name(self) -> str:
        """Return the four names that identify the part, as one text."""
        return " | ".join((self.role, self.module, self.operator, self.dtype))


class MemoryBreakdown(FrozenModel):
    """All parts of a cell's memory, and the moment of its peak. Attribution compares two of these."""

    moment: Moment
    parts: tuple[Part, ...]


class GrowingPart(FrozenModel):
    """Tensors of which more are kept: role, module, operator, line of code, and by how many bytes."""

    role: str
    module: str
    operator: str
    source: str
    nbytes: int


class Growth(FrozenModel):
    """By how many bytes the memory kept after a step is larger in the last `steps` than in as many before."""

    nbytes: int
    steps: int
    parts: tuple[GrowingPart, ...]


class CardPrediction(FrozenModel):
    """The memory that a cell needs on one card, and whether it fits.

    `requested` is the sum that tensors and the workspaces of kernels request. `allocated` and `reserved` are
    the values that `torch.cuda.max_memory_allocated` and `..._reserved` would return, `process` is NVML's
    value. If the cell does not fit, they are the values at its failure.
    """

    gpu: str
    requested: PredictedBytes
    allocated: PredictedBytes
    reserved: PredictedBytes
    process: PredictedBytes
    capacity_low_bytes: int
    capacity_high_bytes: int
    verdict: Verdict


class PassWork(FrozenModel):
    """The work of some batches on a device: those of an optimizer step, or of an evaluation.

    `flops` are all that matrix products and fused attention carry out. Bytes are those that operators read
    and write without caches: `product_bytes` by operators with FLOPs, `other_bytes` by the rest.
    `compulsory_bytes` are the data that existed before and are read, and the data that are written and stay:
    no cache and no fusion avoids them. `kernels` counts at least one per operator. `documents` are examples.
    `by_kernel` has the same work by shape, type and kind.
    """

    documents: int
    batches: int
    flops: int
    product_bytes: int
    other_bytes: int
    compulsory_bytes: int
    kernels: int
    by_kernel: KernelWork = KernelWork()


class CellWork(FrozenModel):
    """The work of a cell: of one full optimizer step, and of an evaluation of a few examples.

    `evaluation.compulsory_bytes` are those of one batch. `checkpoint_bytes` is the size of parameters and
    optimizer state.
    """

    step: PassWork
    evaluation: PassWork
    checkpoint_bytes: int


class CellPrediction(FrozenModel):
    """The prediction of one cell of a profile or of a program, for every card that was requested.

    `tensors` is the peak of the bytes that tensors request, known without a card; only the choice of
    attention kernels makes it differ between cards. `work` is counted on request. If the lengths of batches
    vary, `work` is that of the longest, and `least_work` a lower bound. `breakdown` is set for the cells of
    `PredictRequest.breakdown_of`.

    Of a program there are also `live_blocks`, the number of storages at the peak, and the `growth` of what its
    steps keep; None if that does not grow. Of several processes, `tensors` and all figures of cards are those of
    the rank that needs most, and `smallest_rank_bytes` is the peak of the one that needs least. `managed_bytes`
    are in CUDA's managed memory (paged optimizers), beside all other figures.
    `allocations` is set for the cells of `PredictRequest.allocations_of`; they are those of the first card.
    """

    cell_id: str
    source: Literal["traced", "fitted"]
    tensors: PredictedBytes
    cards: tuple[CardPrediction, ...] = ()
    composition: Composition | None = None
    breakdown: MemoryBreakdown | None = None
    work: CellWork | None = None
    least_work: CellWork | None = None
    live_blocks: int | None = None
    growth: Growth | None = None
    managed_bytes: int = 0
    smallest_rank_bytes: int | None = None
    allocations: PredictedAllocations | None = None


class LargestBatch(FrozenModel):
    """The largest batch size that fits on a card at one length; 0 if none does.

    `certain` fits under every assumption, `possible` under some. `cell_id` is one of the cells of this workload
    and length, `cell_ids` are all of them; `reserved` is the prediction at `certain` (None if that is 0).
    """

    cell_id: str
    cell_ids: tuple[str, ...] = ()
    gpu: str
    max_length: int
    certain: int
    possible: int
    reserved: PredictedBytes | None


class LargestValue(FrozenModel):
    """The largest value of a program's argument that fits on a card, beside the other arguments of a cell."""

    cell_id: str
    gpu: str
    argument: str
    certain: int
    possible: int


class Refused(FrozenModel):
    """A cell that is not predicted, and the reason."""

    cell_id: str
    reason: str


class RefusedCards(FrozenModel):
    """Cards on which a cell is not predicted, and the reason; on others it may be."""

    cell_id: str
    gpus: tuple[str, ...]
    reason: str

    @property
    def text(self) -> str:
        """Return the cards, if there are any, and the reason."""
        return f"on {', '.join(self.gpus)}: {self.reason}" if self.gpus else self.reason


class PredictRequest(FrozenModel):
    """Asks for predictions of cells on cards; all cells belong to one profile.

    `attention` forces one kernel of scaled dot product attention; None takes each card's own choice.
    `assume_torch` is another version of torch, major and minor; what is known of it is corrected.
    `data_at_hand` is False if the data set cannot be read. `work` asks for FLOPs and bytes as well.
    `full_batches` treats every example as long as its cell's `max_length`, without reading the data set; so are
    those of synthetic data (`ftbench.plan.sources.FULL_LENGTH`).
    `hypothetical` cells may ask for more examples than the data set has.
    `breakdown_of` names the cells whose memory is to be broken down into parts, `allocations_of` those whose
    allocations are to be listed. Without `smallest_rank`, the rank
    of sharded cells that needs least is not traced, and taken for like the one that needs most.
    """

    cells: tuple[Cell, ...]
    gpus: tuple[Gpu, ...] = ()
    largest_batch: bool = False
    explain: bool = False
    attention: AttentionKernel | None = None
    expandable_segments: bool = False
    assume_torch: tuple[int, int] | None = None
    data_at_hand: bool = True
    on_cpu: bool = False
    full_batches: bool = False
    hypothetical: bool = False
    work: bool = False
    breakdown_of: tuple[str, ...] = ()
    allocations_of: tuple[str, ...] = ()
    smallest_rank: bool = True
    processes: int = 1


class ProgramRequest(FrozenModel):
    """Asks for predictions of a program's cells on cards; the options are those of `PredictRequest`.

    `largest` names an argument whose largest value that fits is searched.
    """

    program: Program
    cells: tuple[ProgramCell, ...]
    gpus: tuple[Gpu, ...] = ()
    largest: str | None = None
    explain: bool = False
    attention: AttentionKernel | None = None
    expandable_segments: bool = False
    assume_torch: tuple[int, int] | None = None
    breakdown_of: tuple[str, ...] = ()
    allocations_of: tuple[str, ...] = ()
    processes: int = 1


class Predictions(FrozenModel):
    """The answer: a prediction or a refusal for every cell, in their order.

    `data_at_hand` is that of the request, or False if the data were asked for and could not be fetched.

    `by_length` is what each length of the cells makes of the training examples (at most 2,000 of them, drawn at
    random); it is empty if no texts were read.
    """

    cells: tuple[CellPrediction, ...]
    refused: tuple[Refused, ...] = ()
    refused_cards: tuple[RefusedCards, ...] = ()
    largest: tuple[LargestBatch, ...] = ()
    largest_values: tuple[LargestValue, ...] = ()
    notes: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    data_at_hand: bool = True
    by_length: tuple[LengthFacts, ...] = ()

    def on_every_card(self) -> Predictions:
        """Return the same, with a cell that a card refuses refused as a whole, as comparisons need it."""
        partly: dict[str, str] = {}
        for one in self.refused_cards:
            partly.setdefault(one.cell_id, one.text)
        more = tuple(Refused(cell_id=name, reason=why) for name, why in partly.items())
        return self.model_copy(
            update={
                "cells": tuple(one for one in self.cells if one.cell_id not in partly),
                "largest": tuple(one for one in self.largest if one.cell_id not in partly),
                "refused": (*self.refused, *more),
                "refused_cards": (),
            }
        )

    def of(self, cell_id: str) -> CellPrediction | None:
        """Return a cell's prediction; None if it was refused."""
        return next((cell for cell in self.cells if cell.cell_id == cell_id), None)
