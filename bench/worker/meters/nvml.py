"""What the driver sees: memory of this process and of the whole card, through NVML.

The binding is `nvidia-ml-py` (imported as `pynvml`). The card is named by UUID, since NVML's order
need not be CUDA's. Device memory is asked for in version 2, which leaves the driver's own
reservation out of "used". NVML has no peak; the caching allocator hardly ever gives memory back
to the driver, so the reading at the end of a phase is taken as the phase's peak.
"""

from __future__ import annotations

import os

import pynvml


class NvmlMemory:
    """Process and device memory of one card, read at the end of each phase."""

    def __init__(self, uuid: str, pid: int | None = None) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._absent: dict[str, str] = {}
        self._handle = None
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            reason = f"NVML: {error}"
            self._absent = {"peak_process_bytes": reason, "peak_device_bytes": reason}

    def start(self) -> None:
        """Do nothing: NVML keeps no peak."""

    def read(self) -> dict[str, int]:
        """Return process and device memory in bytes, each only where NVML has it."""
        if self._handle is None:
            return {}
        figures = {
            "peak_device_bytes": self._device_bytes(),
            "peak_process_bytes": self._process_bytes(),
        }
        return {name: value for name, value in figures.items() if value is not None}

    def absent(self) -> dict[str, str]:
        """Return why a figure was not to be had."""
        return dict(self._absent)

    def _device_bytes(self) -> int | None:
        try:
            info = pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2)
        except pynvml.NVMLError as error:
            self._absent["peak_device_bytes"] = f"NVML: {error}"
            return None
        return int(info.used)

    def _process_bytes(self) -> int | None:
        name = "peak_process_bytes"
        try:
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError as error:
            self._absent[name] = f"NVML: {error}"
            return None
        mine = [process.usedGpuMemory for process in processes if process.pid == self._pid]
        if not mine:
            self._absent[name] = (
                "NVML does not list this PID (it lists the host's; is this a container?)"
            )
            return None
        if mine[0] is None:
            self._absent[name] = "NVML has no per-process figure here (MIG, WSL)"
            return None
        return int(mine[0])
