"""Beside kernels: the context, NCCL's buffers, and the clock and power of a card under load."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ftbench.records.calibration import CardFigures
from ftbench.worker.measure.device import gpu_uuid

_LOAD = 8192  # the side of the product that loads a card
_LOAD_S = 3.0
_MHZ = 1e6


def card_figures(device: torch.device) -> CardFigures:
    """Return a card's figures; a CPU has none, and a figure that cannot be read is None."""
    if device.type == "cpu":
        return CardFigures()
    torch.ones(1, device=device)  # makes the context
    context = _beside_allocator(device)
    clock, power = _under_load(device)
    nccl = nccl_bytes(device)
    return CardFigures(context_bytes=context, nccl_bytes=nccl, clock_hz=clock, power_watts=power)


def nccl_bytes(device: torch.device) -> int | None:
    """Return the bytes of one communicator; None without NCCL, or if it finds no network or no memory here."""
    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    try:
        before = _beside_allocator(device)
        return max(0, _beside_communicator(device) - before)
    except RuntimeError:  # as of DistBackendError and of torch.OutOfMemoryError
        return None


def _beside_allocator(device: torch.device) -> int:
    """Return the bytes of the card that this process has and torch's allocator does not.

    If NVML does not tell processes apart (in a container), they are all that the card has in use.
    """
    import pynvml

    try:
        handle = _handle(device)
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory) - torch.cuda.memory_reserved(device)
    except pynvml.NVMLError:
        pass
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device)


def _handle(device: torch.device) -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid(torch.cuda.get_device_properties(device)))


def _under_load(device: torch.device) -> tuple[float | None, float | None]:
    """Return the clock in Hz and the power in watts at the end of seconds of products in float32."""
    import pynvml

    a = torch.randn(_LOAD, _LOAD, device=device)
    began = time.perf_counter()
    while time.perf_counter() - began < _LOAD_S:
        torch.mm(a, a)
        torch.cuda.synchronize()
    torch.mm(a, a)  # what is asked next is answered under load
    try:
        handle = _handle(device)
        clock = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) * _MHZ
        power = pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3
    except pynvml.NVMLError:
        return None, None
    finally:
        torch.cuda.synchronize()
    return clock, power


def _beside_communicator(device: torch.device) -> int:
    """Return the bytes beside torch's allocator while NCCL has a communicator of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{Path(folder) / 'store'}"
        torch.distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
        try:
            torch.distributed.all_reduce(torch.ones(1, device=device))
            torch.cuda.synchronize()
            return _beside_allocator(device)
        finally:
            torch.distributed.destroy_process_group()
