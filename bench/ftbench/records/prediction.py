"""Prediction: what a training step is predicted to need of a card's memory. Plain data.

Every figure is in bytes and says what it is: `exact` (to the byte, whatever the card), `simulated` (by
the allocator's own rules, for one answer to each question that has no documented one) or `interval`
(nobody can know it beforehand; the middle is a guess). Low and high hold over all those answers.
"""

from __future__ import annotations

from typing import Literal, get_args

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu

Certainty = Literal["exact", "simulated", "interval"]
Verdict = Literal["fits", "does not fit", "too close to call"]
AttentionKernel = Literal["math", "efficient", "flash", "cudnn"]


class Figure(FrozenModel):
    """A number of bytes, the interval that holds it, and how sure it is."""

    value_bytes: int
    low_bytes: int
    high_bytes: int
    certainty: Certainty


class Share(FrozenModel):
    """A part of the peak: what it is of, and how much."""

    name: str
    nbytes: int


class Moment(FrozenModel):
    """When the peak is reached."""

    phase: str
    step: int
    module: str
    operator: str


class Composition(FrozenModel):
    """What the peak of live tensors consists of, three ways, each from the largest down; and when.

    `timeline` has the live bytes over the traced steps, as (event, bytes) at every turn worth drawing.
    """

    moment: Moment
    roles: tuple[Share, ...]
    modules: tuple[Share, ...]
    operators: tuple[Share, ...]
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
# All in order: the peak; the last traced step before it begins, when its forward and when its backward pass
# has ended; the peaks of its optimizer and of evaluation; and the most that a part is at any time.
MARKS: tuple[MarkName, ...] = get_args(MarkName)


class Part(FrozenModel):
    """What one operator of one module has in memory as one kind of tensor, in bytes at each mark.

    `module` has the layers of a stack under one name (`layer.*`); `operator` is empty for parameters,
    gradients and optimizer state. Marks at which it has nothing are left out. `source` is the line of
    code that asked for the largest of it, where that is known.
    """

    role: str
    module: str
    operator: str
    dtype: str
    nbytes: dict[MarkName, int]
    source: str = ""

    @property
    def name(self) -> str:
        """Return the names that tell parts apart, as one."""
        return " | ".join((self.role, self.module, self.operator, self.dtype))


class MemoryBreakdown(FrozenModel):
    """All parts of a cell's memory, and when its peak is reached: what changes are attributed by."""

    moment: Moment
    parts: tuple[Part, ...]


class CardPrediction(FrozenModel):
    """What a cell needs on one card, and whether it fits.

    `requested` is what tensors and the workspaces of kernels ask for;
    `allocated` and `reserved` are what `torch.cuda.max_memory_allocated` and `..._reserved` would say,
    `process` what NVML would. Where it does not fit, they are what it had when it failed.
    """

    gpu: str
    requested: Figure
    allocated: Figure
    reserved: Figure
    process: Figure
    capacity_low_bytes: int
    capacity_high_bytes: int
    verdict: Verdict


class PassWork(FrozenModel):
    """What some batches ask of a device: of an optimizer step, or of an evaluation.

    `flops` are those of matrix products and fused attention, all that are carried out. Bytes are what
    operators read and write without caches: `product_bytes` of those with FLOPs, `other_bytes` of the
    rest. `compulsory_bytes` are of what was there before and is read, and what is written to stay:
    no cache and no fusion can do without. `kernels` is at least one an operator.
    """

    documents: int
    batches: int
    flops: int
    product_bytes: int
    other_bytes: int
    compulsory_bytes: int
    kernels: int


class CellWork(FrozenModel):
    """The work of a cell: of one full optimizer step, and of an evaluation of a few documents.

    `evaluation.compulsory_bytes` are of one batch. `checkpoint_bytes` is what parameters and
    optimizer state take.
    """

    step: PassWork
    evaluation: PassWork
    checkpoint_bytes: int


class CellPrediction(FrozenModel):
    """The prediction of one cell, for every card that was asked about.

    `tensors` is the peak of what tensors ask for: the same on every card but for its attention
    kernels, and known without one. `work` is counted where that is asked for; where batches' lengths
    vary it is of the longest, and `least_work` a lower bound. `breakdown` has all parts of the memory of
    those cells that they are asked for of.
    """

    cell_id: str
    source: Literal["traced", "fitted"]
    tensors: Figure
    cards: tuple[CardPrediction, ...] = ()
    composition: Composition | None = None
    breakdown: MemoryBreakdown | None = None
    work: CellWork | None = None
    least_work: CellWork | None = None


class LargestBatch(FrozenModel):
    """The largest batch size that fits on a card at one length; 0 where none does.

    `certain` fits whatever is unknown; `possible` may. `cell_id` is of a cell of the same workload
    and length, `cell_ids` of all of them; `reserved` is the figure at `certain` (None where that is 0).
    """

    cell_id: str
    cell_ids: tuple[str, ...] = ()
    gpu: str
    max_length: int
    certain: int
    possible: int
    reserved: Figure | None


class Refused(FrozenModel):
    """A cell that is not predicted, and why."""

    cell_id: str
    reason: str


class PredictRequest(FrozenModel):
    """Asks for predictions of cells on cards; all cells are of one profile.

    `attention` forces one kernel of scaled dot product attention; None takes each card's own choice.
    `data_at_hand` is False where the data set cannot be read. `work` asks for FLOPs and bytes too.
    `full_batches` takes every document for as long as its cell's length, whatever the data set says.
    `breakdown_of` names the cells whose parts are wanted.
    """

    cells: tuple[Cell, ...]
    gpus: tuple[Gpu, ...] = ()
    largest_batch: bool = False
    explain: bool = False
    attention: AttentionKernel | None = None
    expandable_segments: bool = False
    data_at_hand: bool = True
    on_cpu: bool = False
    full_batches: bool = False
    work: bool = False
    breakdown_of: tuple[str, ...] = ()
    processes: int = 1


class Predictions(FrozenModel):
    """The answer: a prediction or a refusal for every cell, in their order."""

    cells: tuple[CellPrediction, ...]
    refused: tuple[Refused, ...] = ()
    largest: tuple[LargestBatch, ...] = ()
    notes: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()

    def of(self, cell_id: str) -> CellPrediction | None:
        """Return a cell's prediction; None where it was refused."""
        return next((cell for cell in self.cells if cell.cell_id == cell_id), None)
