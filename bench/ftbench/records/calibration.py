"""Calibration: the measured speed of one device, kernel by kernel, and what it takes of memory. Plain data.

`ftbench calibrate` writes one file per kind of device. It names the device and the software, and nothing of the
machine or its owner, so that it can be passed on.
"""

from __future__ import annotations

from typing import Literal

from ftbench.base.frozen import FrozenModel
from ftbench.records.kernel_work import MemoryKind

SCHEMA: Literal[1] = 1


class CalibratedDevice(FrozenModel):
    """The device and the software that were measured; `threads` are those that torch used on a CPU."""

    kind: Literal["cpu", "cuda"]
    name: str
    compute_capability: tuple[int, int] | None = None
    total_memory_bytes: int | None = None
    threads: int
    torch: str
    cuda: str | None = None
    driver: str | None = None


class ProductTiming(FrozenModel):
    """Products of `batch` matrices [m, k] and [k, n], and the median seconds of one call."""

    batch: int
    m: int
    n: int
    k: int
    dtype: str
    seconds: float


class MemoryTiming(FrozenModel):
    """Operators of one kind that move memory: mean bytes and median seconds per kernel.

    Bytes are those of all distinct tensors that an operator reads or writes, as predictions count them. `update` is
    for an optimizer's operators.
    """

    kind: MemoryKind
    update: bool
    nbytes: float
    seconds: float


class AttentionTiming(FrozenModel):
    """One call of fused attention over a full square of queries and keys: its FLOPs and median seconds."""

    dtype: str
    length: int
    backward: bool
    flops: int
    seconds: float


class HostTiming(FrozenModel):
    """The host's seconds per kernel that it starts: of passes through a model, and of an optimizer's update.

    On a CPU they are what Python and autograd add to the operators themselves.
    """

    passes_s: float
    update_s: float


class CardFigures(FrozenModel):
    """What a card takes and does beside kernels: bytes of its context and of NCCL, clock and power under load.

    A figure that the driver does not give is None. `nccl_bytes` is of one communicator of one process.
    """

    context_bytes: int | None = None
    nccl_bytes: int | None = None
    clock_hz: float | None = None
    power_watts: float | None = None


class CellCheck(FrozenModel):
    """A real cell on the device after its calibration: the median seconds of a step, predicted and measured."""

    name: str
    predicted_step_s: float
    measured_step_s: float


class Calibration(FrozenModel):
    """All that was measured on one kind of device."""

    schema_version: Literal[1] = SCHEMA
    device: CalibratedDevice
    products: tuple[ProductTiming, ...]
    memory: tuple[MemoryTiming, ...]
    attention: tuple[AttentionTiming, ...] = ()
    host: HostTiming
    card: CardFigures = CardFigures()
    cells: tuple[CellCheck, ...] = ()
    seconds: float
    """How long measuring took."""


class CalibrateRequest(FrozenModel):
    """Asks a worker to measure its device; a third of the kernels if it is to be quick."""

    device: Literal["cpu", "cuda"]
    quick: bool = False


class WorkloadRequest(FrozenModel):
    """Asks a worker to write a model and texts into a folder, for the cells that check a calibration."""

    folder: str
    device: Literal["cpu", "cuda"]


class Workload(FrozenModel):
    """The folders of a model and its data that a worker has written."""

    model: str
    data: str
