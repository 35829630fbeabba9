"""Disturbances of the machine by other programs, swapping and heat, from the kernel's counters.

Processor time is psutil's. Swapped pages are read here (proc(5): vmstat, status), since psutil returns 0
if the kernel does not count them. Intel's processors count overheating in sysfs (kernel documentation, "Intel
thermal throttle events reporting"); those of other makers do not, and virtual machines seldom do.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ftbench.base.units import KIB
from ftbench.records.measurement import RunWarning, WarningName
from ftbench.records.readings import Load

# Above this share of all processors, other processes slow the training down.
OTHERS_WARN = 0.10
# Share of the processors that the hypervisor gave to others.
STEAL_WARN = 0.05
# Pages swapped during a cell. Reading one from an SSD takes about 0.1 ms, so this many take one per cent
# of a cell of ten seconds; an idle machine swaps a few without harm.
SWAP_WARN = 1000
# A processor that throttled even once ran at a lower clock for a while.
THROTTLE_WARN = 0

_SWAPPED = re.compile(r"^pswp(?:in|out) (\d+)$", re.MULTILINE)
_VM_SWAP = re.compile(r"^VmSwap:\s+(\d+) kB$", re.MULTILINE)


def family_cpu_s() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class MachineLoad:
    """The machine's other load, from the construction of this meter to `read`.

    Processor time of other processes, time taken by the hypervisor, swapping, throttling.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        cpus: Path = Path("/sys/devices/system/cpu"),
        *,
        clock: Callable[[], float] = time.monotonic,
        own_cpu: Callable[[], float] = family_cpu_s,
        cpu_times: Callable[[], Any] = psutil.cpu_times,
        cores: int | None = None,
    ) -> None:
        self._proc = proc
        self._cpus = cpus
        self._clock = clock
        self._own_cpu = own_cpu
        self._cpu_times = cpu_times
        self._cores = cores or os.cpu_count() or 1
        self._average_start = os.getloadavg()[0]
        self._began = (clock(), own_cpu())
        self._counted = self._busy_and_steal()
        self._swapped = self._swapped_pages()
        self._throttled = self._throttle_events()

    def _busy_and_steal(self) -> tuple[float, float] | None:
        """Return (busy, stolen) processor seconds since boot, over all processors; None without counters."""
        try:
            used = self._cpu_times()
        except (OSError, ValueError, TypeError):  # psutil raises these for an unexpected file
            return None
        return used.user + used.nice + used.system + used.irq + used.softirq, used.steal

    def _swapped_pages(self) -> int | None:
        """Return the pages swapped in and out since boot, machine-wide; None without a count."""
        return _sum_of(_SWAPPED, self._proc / "vmstat")

    def _own_pages_in_swap(self) -> int | None:
        """Return the pages of this process that are in swap now; None without a count."""
        kib = _sum_of(_VM_SWAP, self._proc / "self" / "status")
        return None if kib is None else kib * KIB // mmap.PAGESIZE

    def _throttle_events(self) -> int | None:
        """Return the throttle events since boot, summed over processors; None without a count."""
        try:
            files = list(self._cpus.glob("cpu*/thermal_throttle/core_throttle_count"))
            return sum(int(file.read_text()) for file in files) if files else None
        except (OSError, ValueError):
            return None

    def read(self) -> Load:
        """Return the load since this meter was made: shares of all processors' time, and counts.

        A field is None if the kernel does not count it.
        """
        shares: dict[str, float | None] = {"others_cpu_share": None, "steal_share": None}
        counted = self._busy_and_steal()
        if counted is not None and self._counted is not None:
            available = max((self._clock() - self._began[0]) * self._cores, 1e-9)
            busy, steal = (now - then for now, then in zip(counted, self._counted, strict=True))
            others = busy - (self._own_cpu() - self._began[1])
            shares["others_cpu_share"] = min(max(others / available, 0.0), 1.0)
            shares["steal_share"] = min(max(steal / available, 0.0), 1.0)
        # Pages of this process that were swapped out before the start are in no later count.
        swapped = (_since(self._swapped, self._swapped_pages()), self._own_pages_in_swap())
        return Load(
            average_start=self._average_start,
            average_end=os.getloadavg()[0],
            swapped_pages=max((pages for pages in swapped if pages is not None), default=None),
            throttle_events=_since(self._throttled, self._throttle_events()),
            **shares,
        )


def _sum_of(pattern: re.Pattern[str], file: Path) -> int | None:
    """Return the sum of the numbers that a pattern finds in a file; None if it finds none."""
    try:
        found = pattern.findall(file.read_text())
    except OSError:
        return None
    return sum(map(int, found)) if found else None


def _since(then: int | None, now: int | None) -> int | None:
    """Return the increase of a counter; 0 if it fell, as when a processor was taken offline."""
    return None if then is None or now is None else max(now - then, 0)


def load_warnings(load: Load) -> list[RunWarning]:
    """Return a warning for each figure of the load that passed its threshold."""
    found: list[tuple[WarningName, float | None, float, str]] = [
        (
            "others_busy",
            load.others_cpu_share,
            OTHERS_WARN,
            f"other processes used {load.others_cpu_share or 0:.0%} of the processors, so times are"
            " probably too long: stop them, and run the cell again",
        ),
        (
            "steal",
            load.steal_share,
            STEAL_WARN,
            f"the hypervisor took {load.steal_share or 0:.0%} of the processors, probably for other"
            " guests, so times are too long: run the cell again, or on a dedicated machine",
        ),
        (
            "swap",
            load.swapped_pages,
            SWAP_WARN,
            f"{load.swapped_pages} pages were swapped, probably because memory ran short, so times"
            " are too long and peak RSS is too small: free some memory, and run the cell again",
        ),
        (
            "throttled",
            load.throttle_events,
            THROTTLE_WARN,
            f"processors throttled {load.throttle_events} times, probably because they were too hot,"
            " so times are too long: let them cool, and run the cell again",
        ),
    ]
    return [
        RunWarning(name=name, message=message, value=value, threshold=threshold)
        for name, value, threshold, message in found
        if value is not None and value > threshold
    ]
