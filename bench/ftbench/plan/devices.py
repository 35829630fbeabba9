"""The devices that a cell runs on: cards by UUID, found through NVML, and the CPU's name; without torch."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import pynvml
from pydantic import model_validator

from ftbench.base.errors import ProfileError
from ftbench.base.frozen import FrozenModel


@functools.cache
def cpu_name() -> str:
    """Return the processor's name from the kernel."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Placement(FrozenModel):
    """Where a cell runs: a kind of device, and the cards by UUID or index, one per process; none on the CPU."""

    kind: Literal["cpu", "cuda"]
    devices: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_cards(self) -> Self:
        if (self.kind == "cuda") != bool(self.devices):
            raise ValueError("devices: at least one card, and none on the CPU")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError("devices: a card is named twice")
        return self

    @property
    def world_size(self) -> int:
        """Return the number of processes."""
        return max(1, len(self.devices))

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of a worker, which make it see its card only: the first.

        A process that sees several would train on all of them (`torch.nn.DataParallel`). Each rank of a cell of
        several processes is shown its own.
        """
        # With the NVML check, torch.cuda.is_available() makes no CUDA context.
        return {
            "CUDA_VISIBLE_DEVICES": "".join(self.devices[:1]),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }


def choose_device(
    setting: str, environ: Mapping[str, str] = os.environ, *, processes: int = 1
) -> Placement:
    """Return the device of `run.device`: `auto` takes the first visible GPU, else the CPU.

    For a cell of several processes, each with a GPU of its own, it has as many of those that are visible as there
    are, beginning with that one. Raises ProfileError if the GPU asked for does not exist.
    """
    if setting == "cpu":
        return Placement(kind="cpu")
    visible = _visible_gpus(environ)
    if setting == "auto":
        return (
            Placement(kind="cuda", devices=tuple(visible[:processes]))
            if visible
            else Placement(kind="cpu")
        )
    wanted = visible[:1] if setting == "cuda" else [uuid for uuid in visible if uuid == setting]
    if not wanted:
        raise ProfileError(
            "no such device",
            where="run.device",
            got=setting,
            expected=f"auto, cpu{''.join(f', {uuid}' for uuid in visible) or ' (no GPU is visible)'}",
        )
    first = wanted[:1]
    others = [uuid for uuid in visible if uuid not in first]
    return Placement(kind="cuda", devices=(*first, *others[: processes - 1]))


def _visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """Return the visible GPUs: those of `CUDA_VISIBLE_DEVICES` if it is set, else NVML's UUIDs."""
    uuids = _uuids()
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not uuids:
        return uuids
    # An index counts in CUDA's order, which need not be NVML's: it is passed on unchanged.
    return [name for name in named.split(",") if name and not name.startswith("-")]


def _uuids() -> list[str]:
    """Return the UUID of each NVIDIA card; none if there is no driver."""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
