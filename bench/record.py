"""Record: what one replicate of one cell gave. Written once, read by everything after.

Bytes and seconds, the unit in the name. What could not be had is `None`, and `absent` says why:
it maps the field's path (`memory.peak_process_bytes`) to the reason.

Schema history
    1  2026-11  first version
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, StrictInt

from bench.grid import Cell
from bench.profile import Frozen

SCHEMA_VERSION = 1

Status = Literal["ok", "oom", "timeout", "crashed", "invalid"]
# "save" is every checkpoint, loading the best one at the end, and the final model and metrics.
PhaseName = Literal["load", "first_steps", "train", "evaluation", "save"]
PHASES: tuple[PhaseName, ...] = ("load", "first_steps", "train", "evaluation", "save")

# The steps that are a phase of their own: the optimizer's state is created in the first, and
# caches are warm only after the second.
FIRST_STEPS = 2


class Device(Frozen):
    """The one device that a cell ran on."""

    kind: Literal["cpu", "cuda"]
    name: str
    uuid: str | None = None
    total_memory_bytes: int | None = None
    threads: int | None = None


class Environment(Frozen):
    """Packages, hardware and driver that figures depend on; recorded apart from the cells."""

    python: str
    platform: str
    packages: dict[str, str]
    cpu: str
    cores: int
    memory_bytes: int
    device: Device
    driver: str | None = None
    cuda: str | None = None
    git_commit: str | None = None  # of the folder that the command ran in

    @property
    def environment_id(self) -> str:
        """Return the hash that two runs under the same environment share; the commit is not in it."""
        text = json.dumps(self.model_dump(mode="json", exclude={"git_commit"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Memory(Frozen):
    """Peaks of one phase, or of the whole cell. Host figures everywhere, the others on CUDA."""

    peak_rss_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_process_bytes: int | None = None
    peak_device_bytes: int | None = None


class Phase(Frozen):
    """One phase of a cell, over all the times it was entered; counts where documents pass through."""

    wall_s: float
    cpu_s: float
    entries: int
    steps: int | None = None
    samples: int | None = None
    real_tokens: int | None = None
    padded_tokens: int | None = None
    data_wait_s: float | None = None
    memory: Memory


class Epoch(Frozen):
    """What was read after one epoch of training."""

    epoch: int
    train_loss: float | None
    eval_loss: float | None
    eval_accuracy: float | None


class StepSummary(Frozen):
    """Statistics of the full-size steps after the first two; every step's time is in Parquet.

    Rates are over all the steps after the first two: what was seen divided by the time it took.
    """

    count: int
    median_s: float
    q1_s: float
    q3_s: float
    data_wait_median_s: float
    samples_per_s: float
    real_tokens_per_s: float
    padded_tokens_per_s: float
    flops_per_s: float | None = None
    mfu: float | None = None


class Failure(Frozen):
    """Why a cell has no result: the step it happened at, the message, the end of the log."""

    message: str
    phase: str | None = None
    step: int | None = None
    log_tail: str = ""


class Load(Frozen):
    """How busy the machine was during the cell: load averages, and shares of all processors' time.

    The shares are None where the kernel does not count them.
    """

    average_start: float
    average_end: float
    others_cpu_share: float | None
    steal_share: float | None


class Measurement(Frozen):
    """What the worker measured in a cell that completed."""

    device: Device
    phases: dict[PhaseName, Phase]
    epochs: tuple[Epoch, ...]
    steps: StepSummary | None
    memory: Memory
    worker_s: float
    total_s: float
    train_s: float
    train_loss: float | None
    eval_loss: float | None
    eval_accuracy: float | None
    load: Load
    peak_matmul_flops: float | None
    absent: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Record(Frozen):
    """One replicate of one cell: what was asked, how it ended, what was measured."""

    schema_version: StrictInt = SCHEMA_VERSION
    cell_id: str
    replicate: int
    seed: int
    cell: Cell
    axes: tuple[str, ...]
    status: Status
    environment_id: str
    started_at: str
    wall_s: float
    measurement: Measurement | None = None
    failure: Failure | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """Return (cell_id, replicate), which names this record in a run directory."""
        return self.cell_id, self.replicate

    def axis_value(self, name: str) -> Any:
        """Return the cell's value on an axis."""
        return self.cell.value(name)
