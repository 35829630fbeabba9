"""The worker that measures its device: `Calibration` for a `CalibrateRequest`, both as JSON data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ftbench.records.calibration import (
    CalibratedDevice,
    CalibrateRequest,
    Calibration,
    HostTiming,
)
from ftbench.records.messages import Progress
from ftbench.worker.calibrate.card import card_figures
from ftbench.worker.calibrate.host import seconds_of_passes, seconds_of_update
from ftbench.worker.calibrate.memory_kernels import memory_timings
from ftbench.worker.calibrate.products import attention_timings, product_timings
from ftbench.worker.measure.device import describe, torch_device
from ftbench.worker.prepare.environment import nvidia_driver


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return a `Calibration` without cells. Raises WorkerError if torch cannot use the device."""
    began = time.perf_counter()
    request = CalibrateRequest.model_validate(body)
    device, quick = torch_device(request.device), request.quick
    torch.manual_seed(0)
    emit(Progress(phase="measuring the context, clock and power"))
    card = card_figures(device)
    emit(Progress(phase="measuring matrix products"))
    products = tuple(product_timings(device, quick=quick))
    emit(Progress(phase="measuring operators that move memory"))
    memory = tuple(memory_timings(device, quick=quick))
    emit(Progress(phase="measuring fused attention"))
    attention = tuple(attention_timings(device))
    emit(Progress(phase="measuring the host"))
    passes, update = (
        _per_kernel(found) for found in (seconds_of_passes(device), seconds_of_update(device))
    )
    return Calibration(
        device=described(device),
        products=products,
        memory=memory,
        attention=attention,
        host=HostTiming(passes_s=passes, update_s=update),
        card=card,
        seconds=time.perf_counter() - began,
    ).model_dump(mode="json")


def _per_kernel(found: tuple[float, int]) -> float:
    seconds, kernels = found
    return seconds / kernels


def described(device: torch.device) -> CalibratedDevice:
    """Return the device and its software; neither the card's number nor anything of the machine."""
    found = describe(device)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return CalibratedDevice(
        kind=found.kind,
        name=found.name,
        compute_capability=capability,
        total_memory_bytes=found.total_memory_bytes,
        threads=found.threads,
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        driver=nvidia_driver() if device.type == "cuda" else None,
    )
