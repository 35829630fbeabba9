"""The device of this worker, and the peak rate of its matrix products."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch

from ftbench.base.errors import WorkerError
from ftbench.plan.devices import cpu_name
from ftbench.records.environment import Device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Square matrices, doubled until a product takes long enough to be near the peak. In a dtype for which
# the processor has no instructions, even small ones take long.
_MATMUL_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_MATMUL_LONG_ENOUGH_S = 0.02
_MATMUL_TRIES = 9


def torch_device(kind: str) -> torch.device:
    """Return the one device of this worker; raises WorkerError if torch cannot use it."""
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WorkerError(
            "a GPU was chosen, but this torch cannot use it",
            got=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
            hint="install a CUDA build of torch, or run with --set run.device=cpu",
        )
    return torch.device("cuda", 0)


def describe(device: torch.device) -> Device:
    """Return a device's description for records."""
    if device.type == "cpu":
        return Device(kind="cpu", name=cpu_name(), threads=torch.get_num_threads())
    properties = torch.cuda.get_device_properties(device)
    return Device(
        kind="cuda",
        name=properties.name,
        uuid=gpu_uuid(properties),
        total_memory_bytes=properties.total_memory,
        threads=torch.get_num_threads(),
    )


def gpu_uuid(properties: Any) -> str:
    """Return the UUID as NVML writes it, with the prefix that torch leaves out."""
    uuid = str(properties.uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def measure_matmul(device: torch.device, dtype: str) -> float:
    """Return the highest rate, in FLOP/s, of several square matrix products on the device."""
    generator = torch.Generator().manual_seed(0)  # leaves the global generator alone
    for size in _MATMUL_SIZES:
        a = torch.rand(size, size, generator=generator).to(device, DTYPES[dtype])
        _time_matmul(a)  # warm-up: loads libraries, touches memory
        if _time_matmul(a) >= _MATMUL_LONG_ENOUGH_S:
            break
    return 2.0 * size**3 / min(_time_matmul(a) for _ in range(_MATMUL_TRIES))


def _time_matmul(a: torch.Tensor) -> float:
    """Return the seconds of one product of a matrix with itself."""
    _synchronize(a.device)
    began = time.perf_counter()
    torch.matmul(a, a)
    _synchronize(a.device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def synchronizer(device: torch.device) -> Any:
    """Return a function that waits until the device has done its work."""
    return functools.partial(_synchronize, device)
