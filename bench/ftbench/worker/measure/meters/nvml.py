"""The driver's figures of one card, through NVML: read by the sampler beside the worker.

The binding is `nvidia-ml-py` (imported as `pynvml`). The card is named by UUID, since NVML's order
need not be CUDA's. A small process imports this module, so it imports nothing large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pynvml

DEVICE = "peak_device_bytes"
PROCESS = "peak_process_bytes"

NOT_LISTED = (
    "NVML does not list this PID: it lists the host's (is this a container?),"
    " and only those that use CUDA"
)
NO_PROCESS_FIGURE = "NVML has no per-process figure here (MIG, WSL)"
VERSION_2 = "NVML nvmlDeviceGetMemoryInfo v2, sampled"
VERSION_1 = (
    "NVML nvmlDeviceGetMemoryInfo v1, sampled: counts what the driver keeps for itself as used"
)
PROCESSES = "NVML nvmlDeviceGetComputeRunningProcesses, sampled"

# The reasons for reduced clocks that nobody asked for (nvml.h). An idle card and clocks that somebody
# set (application, display) are left out, and so is the power cap, which usually limits a large card under
# full load.
_SLOWING = {
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal limit of the driver",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal limit of the hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power brake",
}
# After these errors, this process cannot read the card again.
_LOST = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
# Errors of a driver that does not know a call, or a version of it.
_UNKNOWN_CALL = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
)


class CardReading(NamedTuple):
    """One reading; a figure that could not be read is None, and `absent` has the reason by its field.

    `others` has the bytes of every other process on the card by PID; `slowing` names the reasons for reduced
    clocks.
    """

    device_bytes: int | None = None
    process_bytes: int | None = None
    listed: bool = False
    others: dict[int, int | None] | None = None
    slowing: tuple[str, ...] | None = None
    absent: dict[str, str] = {}  # noqa: RUF012  (a default of a tuple's field, never written to)


class NvmlCard:
    """One card, and one process on it.

    `gone` is the reason that there is no figure at all: no driver, no such card, or a lost card.
    """

    def __init__(self, uuid: str, pid: int) -> None:
        self._pid = pid
        self._version: int | None = pynvml.nvmlMemory_v2
        self._handle: Any = None
        self.gone: str | None = None
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            self.gone = f"NVML: {error}"

    def sources(self) -> dict[str, str]:
        """Return the source of each figure, by field."""
        return {DEVICE: VERSION_2 if self._version else VERSION_1, PROCESS: PROCESSES}

    def read(self) -> CardReading:
        """Return the current reading of the card."""
        reading = CardReading() if self.gone else self._read()
        if self.gone:  # before, or while it was read
            return CardReading(absent=dict.fromkeys((DEVICE, PROCESS), self.gone))
        return reading

    def energy_mj(self) -> int | None:
        """Return millijoules since the driver was loaded, of the whole card (Volta and newer)."""
        energy: int | None = self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return energy

    def _read(self) -> CardReading:
        absent: dict[str, str] = {}
        info = self._ask(self._memory_info, DEVICE, absent)
        device_bytes = None if info is None else int(info.used)
        # The list of graphics processes is left out: a process in both would be counted twice.
        listing = self._ask(pynvml.nvmlDeviceGetComputeRunningProcesses, PROCESS, absent)
        mask = self._ask(self._clock_reasons)
        slowing = None if mask is None else tuple(_SLOWING[bit] for bit in _SLOWING if mask & bit)
        if listing is None:
            return CardReading(device_bytes, slowing=slowing, absent=absent)
        by_pid = {process.pid: process.usedGpuMemory for process in listing}
        listed = self._pid in by_pid
        process_bytes = by_pid.pop(self._pid, None)
        if process_bytes is None:
            absent[PROCESS] = NO_PROCESS_FIGURE if listed else NOT_LISTED
        return CardReading(device_bytes, process_bytes, listed, by_pid, slowing, absent)

    def _memory_info(self, handle: Any) -> Any:
        """Return device memory in version 2, whose "used" does not include the driver's reservation."""
        try:
            return pynvml.nvmlDeviceGetMemoryInfo(handle, version=self._version)
        except pynvml.NVMLError as error:
            if self._version is None or error.value not in _UNKNOWN_CALL:
                raise
            self._version = None  # from now on, since a peak may not mix the two
            return pynvml.nvmlDeviceGetMemoryInfo(handle)

    def _clock_reasons(self, handle: Any) -> Any:
        """Return the mask of reasons for reduced clocks; the call had another name until 2023."""
        try:
            return pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except pynvml.NVMLError as error:
            if error.value not in _UNKNOWN_CALL:
                raise
            return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)

    def _ask(
        self, function: Callable[[Any], Any], name: str = "", absent: dict[str, str] | None = None
    ) -> Any:
        """Return NVML's answer; on an error None, with the reason in `absent` under `name`."""
        if self.gone:
            return None
        try:
            return function(self._handle)
        except pynvml.NVMLError as error:
            if absent is not None:
                absent[name] = f"NVML: {error}"
            if error.value in _LOST:
                self.gone = f"NVML: {error}: the card was lost, so earlier peaks do not count"
            return None
