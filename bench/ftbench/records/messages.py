"""What the parent and a worker say to each other: plain JSON, nothing pickled.

Down goes one request (`Preparation` asked for, or one replicate of a cell); up come progress
events and, last, one answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.plan.profile import Method
from ftbench.records.record import Environment, Memory, PhaseName


class PrepareRequest(FrozenModel):
    """Asks for a workload to be probed and tokenised, and the device's matmul peak measured."""

    cells: tuple[Cell, ...]
    device: str
    scratch: str


class TokenisedPools(FrozenModel):
    """Arrow files of the tokenised training and evaluation pools, already in shuffled order."""

    train: str
    evaluation: str


class StepFlops(FrozenModel):
    """The FLOPs of training on one document, c0 + c1*S + c2*S^2; or why there is no such formula."""

    coefficients: tuple[int, int, int] | None = None
    absent: str | None = None


class Preparation(FrozenModel):
    """What the prepare stage found and made, once for all cells."""

    environment: Environment
    labels: tuple[str, ...]
    parameters: int
    train_pool: int
    eval_pool: int
    eval_split: str
    tokenised: dict[str, TokenisedPools]  # by `tokenised_key`
    flops: tuple[int, int, int] | None = None  # (c0, c1, c2): c0 + c1*S + c2*S^2 a document
    flops_absent: str | None = None
    # Of the cells' other methods; `flops` is full fine-tuning's.
    flops_by_method: dict[Method, StepFlops] = Field(default_factory=dict)
    peak_matmul_flops: dict[str, float] = Field(default_factory=dict)  # FLOP/s by dtype
    seconds: float = 0.0

    def step_flops(self, method: Method) -> StepFlops:
        """Return the FLOPs of one method's training."""
        full = StepFlops(coefficients=self.flops, absent=self.flops_absent)
        return full if method == "full" else self.flops_by_method[method]


class WorkspaceRequest(FrozenModel):
    """A request whose names are relative to the folder that the engine has laid out for its worker."""

    workspace: str = ""

    def path(self, name: str) -> str:
        """Return the path of a name of this request, where the worker runs."""
        return str(Path(self.workspace) / name)


class CellRequest(WorkspaceRequest):
    """Asks for one replicate of a cell, with what was prepared for it."""

    cell: Cell
    replicate: int
    seed: int
    device: str
    preparation: Preparation
    output: str  # a folder of the cell's own, for checkpoints and the trained model
    steps_file: str  # Parquet, one row a step
    samples_file: str  # Parquet, one row a sample of memory
    reports: str  # a folder for what `report_to` writes; its name is the run's


class TwoStepRequest(WorkspaceRequest):
    """Asks for two optimizer steps of a cell on its longest documents.

    With `tensors` torch's own CPU allocator is metered through the profiler, and one batch is
    evaluated; else the ledger is kept as in a cell, and nothing is evaluated.
    """

    cell: Cell
    seed: int
    device: str
    preparation: Preparation
    output: str
    tensors: bool
    memory_limit_bytes: int | None = None  # on CUDA: torch may reserve no more than this


class TwoStepPass(FrozenModel):
    """What two steps of a cell took, by phase; and over all of them."""

    phases: dict[PhaseName, Memory]
    memory: Memory
    absent: dict[str, str] = Field(default_factory=dict)


class Progress(FrozenModel):
    """Where a running cell is."""

    phase: str
    step: int | None = None
    max_steps: int | None = None
    epoch: float | None = None
    loss: float | None = None


class Event(FrozenModel):
    """One line from a worker: progress, or its answer, or a refusal to be raised in the parent."""

    kind: Literal["progress", "answer", "refusal"]
    body: dict[str, Any]


def tokenised_key(cell: Cell) -> str:
    """Return the name of the tokenised pools that a cell reads."""
    return f"{cell.padding}-{cell.max_length}"
