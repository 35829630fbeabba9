"""The worker that runs a loop on a card, and reads every meter at its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ftbench.records.messages import Progress
from ftbench.records.selfcheck import Measured, MeasureRequest
from ftbench.worker.measure.device import gpu_uuid, torch_device
from ftbench.worker.measure.meters.nvml import PROCESS, NvmlCard
from ftbench.worker.selfcheck.programs import make_step

# More than any of the loops has: a ring buffer that is too small would lose the beginning.
_MOST_EVENTS = 1_000_000


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return `Measured` for a `MeasureRequest`, both as JSON data."""
    request = MeasureRequest.model_validate(body)
    device = torch_device("cuda")
    if request.limit_bytes is not None:
        limit_memory(device, request.limit_bytes)
    if request.snapshot is not None:
        torch.cuda.memory._record_memory_history(max_entries=_MOST_EVENTS, stacks="python")
    emit(Progress(phase="running steps"))
    kept: list[Any] = []  # until the snapshot is written: a prediction ends with all that is live
    loss, fits = run_steps(device, request, kept)
    torch.cuda.synchronize()
    found = read_meters(device, loss, fits=fits)
    if request.snapshot is not None:
        torch.cuda.memory._dump_snapshot(request.snapshot)
    return found.model_dump(mode="json")


def limit_memory(device: torch.device, limit_bytes: int) -> None:
    """Limit what the allocator may reserve. torch multiplies its share with the total again, in floating point."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(limit_bytes / total, device)


def run_steps(
    device: torch.device, request: MeasureRequest, kept: list[Any]
) -> tuple[float | None, bool]:
    """Return the last step's loss, and whether all steps had room; `kept` gets the loop and its last result."""
    result = None
    try:
        step = make_step(device, **request.arguments)  # type: ignore[arg-type]
        for _ in range(request.steps):
            result = step()  # kept until the next one returns, as in a prediction
    except torch.OutOfMemoryError:
        return None, False
    kept += [step, result]
    return None if result is None else float(result), True


def read_meters(device: torch.device, loss: float | None, *, fits: bool) -> Measured:
    """Return the allocator's peaks since the process began, and NVML's figure now."""
    stats = torch.cuda.memory_stats(device)
    card = NvmlCard(gpu_uuid(torch.cuda.get_device_properties(device)), os.getpid())
    reading = card.read()
    return Measured(
        requested_bytes=stats["requested_bytes.all.peak"],
        allocated_bytes=stats["allocated_bytes.all.peak"],
        reserved_bytes=stats["reserved_bytes.all.peak"],
        process_bytes=reading.process_bytes,
        process_absent=reading.absent.get(PROCESS),
        out_of_memory=not fits,
        retries=stats.get("num_alloc_retries", 0),
        loss=loss,
    )
