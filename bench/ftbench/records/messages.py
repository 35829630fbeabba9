"""The messages between the parent and a worker: plain JSON, nothing pickled.

The parent sends one request (for a `Preparation`, a replicate of a cell, or a two-step pass); the worker
sends progress events and, at the end, one answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.profile import Method
from ftbench.records.environment import Environment
from ftbench.records.measurement import RunWarning
from ftbench.records.readings import Memory, PhaseName


class PrepareRequest(FrozenModel):
    """Asks a worker to probe and tokenise a workload, and to measure the device's matmul peak."""

    cells: tuple[Cell, ...]
    device: str
    scratch: str


class TokenisedPools(FrozenModel):
    """Arrow files of the tokenised training and evaluation pools, already in shuffled order."""

    train: str
    evaluation: str


class StepFlops(FrozenModel):
    """The FLOPs per training example of length S, c0 + c1*S + c2*S^2; or why there is no such formula."""

    coefficients: tuple[int, int, int] | None = None
    absent: str | None = None


class ClassCount(FrozenModel):
    """A class, and its examples in the pools and among those that are evaluated."""

    name: str
    train_pool: int
    eval_pool: int
    evaluated: int


class DataFacts(FrozenModel):
    """The examples as they are: classes, rows left out, and the way in which files were read.

    `classes` is empty for a regression. `left_out` counts the rows that were left out on request, by reason.
    `evaluated_in_training` counts the evaluation examples that are training examples, too (the same texts), by
    `train_size` (or by the size of the training pool, if texts are joined).
    """

    classes: tuple[ClassCount, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict)
    evaluated_in_training: dict[int, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def majority_share(self) -> float | None:
        """Return the share of the most frequent class among the evaluated examples; None for a regression."""
        counts = [found.evaluated for found in self.classes]
        return max(counts) / sum(counts) if sum(counts) else None


class Preparation(FrozenModel):
    """The results of the prepare stage, which runs once for all cells."""

    environment: Environment
    labels: tuple[str, ...]
    parameters: int
    train_pool: int
    eval_pool: int
    eval_split: str
    warnings: tuple[RunWarning, ...] = ()  # about the workload, so about every cell
    data: DataFacts = DataFacts()
    tokenised: dict[str, TokenisedPools]  # by `tokenised_key`
    flops: tuple[int, int, int] | None = None  # (c0, c1, c2): c0 + c1*S + c2*S^2 per example
    flops_absent: str | None = None
    # Those of the cells' other methods; `flops` are those of full fine-tuning.
    flops_by_method: dict[Method, StepFlops] = Field(default_factory=dict)
    peak_matmul_flops: dict[str, float] = Field(default_factory=dict)  # FLOP/s by dtype
    seconds: float = 0.0

    def step_flops(self, method: Method) -> StepFlops:
        """Return the FLOPs per training example of one method."""
        full = StepFlops(coefficients=self.flops, absent=self.flops_absent)
        return full if method == "full" else self.flops_by_method[method]


class WorkspaceRequest(FrozenModel):
    """A request whose file names are relative to the folder that the engine prepares for its worker."""

    workspace: str = ""

    def path(self, name: str) -> str:
        """Return the path of one of the request's file names on the worker's machine."""
        return str(Path(self.workspace) / name)


class CellRequest(WorkspaceRequest):
    """Asks for one replicate of a cell, and carries the preparation."""

    cell: Cell
    replicate: int
    seed: int
    device: str
    preparation: Preparation
    output: str  # a folder of the cell's own, for checkpoints and the trained model
    steps_file: str  # Parquet, one row per step
    samples_file: str  # Parquet, one row per sample of memory
    reports: str  # a folder for the trackers of `report_to`; its name is the run's


class TwoStepRequest(WorkspaceRequest):
    """Asks for two optimizer steps of a cell on its longest training examples.

    With `tensors`, torch's CPU allocator is metered through the profiler, and one batch is evaluated. Without,
    memory is read as in a cell, and nothing is evaluated.
    """

    cell: Cell
    seed: int
    device: str
    preparation: Preparation
    output: str
    tensors: bool
    memory_limit_bytes: int | None = None  # on CUDA: torch may reserve no more than this


class LaunchRequest(WorkspaceRequest):
    """Asks for a request to be run by several processes that train together.

    `module` and `request` are what a single process would be asked. `devices` are the cards by UUID, one per
    process, and none on the CPU. The output of rank r goes into the file `of_rank(log, r)`.
    """

    module: str
    request: dict[str, Any]
    processes: int = Field(ge=2)
    devices: tuple[str, ...] = ()
    log: str


def of_rank(name: str, rank: int) -> str:
    """Return the name of one rank's own file, such as `logs/NAME-rank1.log` for `logs/NAME.log`."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-rank{rank}{dot}{suffix}"


class TwoStepPass(FrozenModel):
    """The memory of two steps of a cell, by phase and over all phases."""

    phases: dict[PhaseName, Memory]
    memory: Memory
    absent: dict[str, str] = Field(default_factory=dict)


class RankPosition(FrozenModel):
    """The position of one rank of a running cell: its phase, its step, the collectives that it has begun."""

    phase: str | None = None
    step: int | None = None
    collectives: int | None = None


class TwoStepPasses(FrozenModel):
    """The two-step passes of the processes of a cell, one per rank."""

    ranks: tuple[TwoStepPass, ...]


class Progress(FrozenModel):
    """The position of a running cell; of several processes it is that of rank 0, and `ranks` has all of them."""

    phase: str
    step: int | None = None
    max_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None
    ranks: tuple[RankPosition, ...] = ()


class Event(FrozenModel):
    """One line from a worker: progress, its answer, or an error that the parent raises (`refusal`)."""

    kind: Literal["progress", "answer", "refusal"]
    body: dict[str, Any]


def tokenised_key(cell: Cell) -> str:
    """Return the name of the tokenised pools that a cell reads."""
    packed = "" if cell.packing == "none" else f"-{cell.packing}"
    return f"{cell.padding}-{cell.max_length}{packed}"
