"""Which one device cells run on, found without torch: by UUID, through NVML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import pynvml

from ftbench.base.errors import ProfileError
from ftbench.base.frozen import FrozenModel


class DeviceChoice(FrozenModel):
    """A kind of device, and the value of CUDA_VISIBLE_DEVICES under which a worker sees just it."""

    kind: Literal["cpu", "cuda"]
    visible: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that a worker is started with."""
        # The NVML check answers torch.cuda.is_available() without making a CUDA context.
        return {"CUDA_VISIBLE_DEVICES": self.visible, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


def choose_device(setting: str, environ: Mapping[str, str] = os.environ) -> DeviceChoice:
    """Return the device of `run.device`: `auto` takes the first visible GPU, else the CPU.

    Raises ProfileError where a GPU is asked for that is not there.
    """
    if setting == "cpu":
        return DeviceChoice(kind="cpu")
    visible = _visible_gpus(environ)
    if setting == "auto":
        return (
            DeviceChoice(kind="cuda", visible=visible[0]) if visible else DeviceChoice(kind="cpu")
        )
    wanted = visible[:1] if setting == "cuda" else [uuid for uuid in visible if uuid == setting]
    if not wanted:
        raise ProfileError(
            "no such device",
            where="run.device",
            got=setting,
            expected=f"auto, cpu{''.join(f', {uuid}' for uuid in visible) or ' (no GPU is visible)'}",
        )
    return DeviceChoice(kind="cuda", visible=wanted[0])


def _visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """Return the visible GPUs: the user's own list where there is one, else NVML's UUIDs."""
    uuids = _uuids()
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not uuids:
        return uuids
    # An index counts in CUDA's order, which need not be NVML's: it is handed on as it is.
    return [name for name in named.split(",") if name and not name.startswith("-")]


def _uuids() -> list[str]:
    """Return the UUID of each NVIDIA card; none where there is no driver."""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
