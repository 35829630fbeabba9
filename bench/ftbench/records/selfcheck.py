"""Selfcheck: what one pass over a machine with a card found, row by row. Plain data.

Every figure of memory is in bytes. The page is written after each row, so that an interruption loses none.
"""

from __future__ import annotations

from typing import Literal

from ftbench.base.frozen import FrozenModel
from ftbench.records.prediction import PredictedBytes

SCHEMA: Literal[1] = 1
Status = Literal["ok", "failed", "left out"]
Unit = Literal["byte", "s", "ratio", "count"]


class SelfcheckCard(FrozenModel):
    """A card as torch describes it."""

    name: str
    uuid: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    total_memory_bytes: int


class Machine(FrozenModel):
    """The cards that are visible, and the versions of what measures them; None of a package that is missing."""

    cards: tuple[SelfcheckCard, ...]
    cuda: str | None
    driver: str | None
    versions: dict[str, str | None] = {}  # noqa: RUF012  (a default of a frozen model, copied for each)


class MachineRequest(FrozenModel):
    """Asks a worker for the cards that torch can use."""


class MeasureRequest(FrozenModel):
    """Asks a worker to run the steps of a program on its card.

    `arguments` are those of the program's factory. `snapshot` is the file that the history of the allocator goes
    to; None records none. `limit_bytes` is what the allocator may reserve.
    """

    arguments: dict[str, str | int | bool]
    steps: int
    snapshot: str | None = None
    limit_bytes: int | None = None


class Measured(FrozenModel):
    """The peaks of a run by `torch.cuda.memory_stats`, and NVML's figure of the process at its end, in bytes.

    `process_bytes` is None if NVML has none, for the reason in `process_absent`. A run that went out of memory
    has the figures up to there. `loss` is that of the last step.
    """

    requested_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int | None = None
    process_absent: str | None = None
    out_of_memory: bool = False
    retries: int = 0
    loss: float | None = None


class OverheadRequest(FrozenModel):
    """Asks a worker for the step times of a Trainer with our meters and of a bare one, in turns."""

    folder: str
    rounds: int
    steps: int


class Overhead(FrozenModel):
    """Seconds of steps, round by round: each round has those with meters, and those of a bare Trainer."""

    metered_s: tuple[tuple[float, ...], ...]
    bare_s: tuple[tuple[float, ...], ...]


class RanksRequest(FrozenModel):
    """Asks a worker for the memory of two processes that train together: one copy each, or shards.

    On `cpu` nothing is measured, and the processes only have to train.
    """

    strategy: Literal["ddp", "fsdp2"]
    device: Literal["cuda", "cpu"]
    uuids: tuple[str, ...]
    folder: str
    steps: int


class RanksMeasured(FrozenModel):
    """What each process measured, by rank."""

    ranks: tuple[Measured, ...]


class CheckedFigure(FrozenModel):
    """One figure of a row: what was measured, what was predicted, and whether both agree (None: not compared)."""

    name: str
    unit: Unit
    measured: float | None
    predicted: PredictedBytes | None = None
    agrees: bool | None = None


class RowAnswer(FrozenModel):
    """What a row's process found. `reason` says in one sentence why it failed; `send` are files that show it."""

    status: Status
    reason: str = ""
    figures: tuple[CheckedFigure, ...] = ()
    notes: tuple[str, ...] = ()
    send: tuple[str, ...] = ()


class SelfcheckRow(FrozenModel):
    """A row of the page: a check, its result, and the seconds that it took. `send` are relative to the page."""

    name: str
    about: str
    seconds: float
    answer: RowAnswer


class Selfcheck(FrozenModel):
    """The page. `complete` is False while rows are still to come."""

    schema_version: Literal[1] = SCHEMA
    ftbench: str
    machine: Machine
    rows: tuple[SelfcheckRow, ...]
    budget_s: float
    seconds: float
    complete: bool

    @property
    def failed(self) -> tuple[SelfcheckRow, ...]:
        """Return the rows that failed."""
        return tuple(row for row in self.rows if row.answer.status == "failed")
