"""How busy the machine was beside us, from the kernel's counters of processor time (proc(5), stat)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from bench.record import Load

# Processor time taken by other processes, as a share of all processors, above which times suffer.
OTHERS_WARN = 0.10
# Processor time that the hypervisor kept for itself: the machine is smaller than it looks.
STEAL_WARN = 0.05


def family_cpu_s() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class MachineLoad:
    """Processor time of other processes, and time stolen by the hypervisor, between start and read."""

    def __init__(
        self,
        stat: Path = Path("/proc/stat"),
        *,
        clock: Callable[[], float] = time.monotonic,
        own_cpu: Callable[[], float] = family_cpu_s,
        cores: int | None = None,
    ) -> None:
        self._stat = stat
        self._clock = clock
        self._own_cpu = own_cpu
        self._cores = cores or os.cpu_count() or 1
        self._average_start = os.getloadavg()[0]
        self._began = (clock(), own_cpu())
        self._counted = self._busy_and_steal()

    def _busy_and_steal(self) -> tuple[float, float] | None:
        """Return (busy, stolen) processor seconds since boot, over all processors; None without."""
        try:
            fields = self._stat.read_text().split("\n", 1)[0].split()[1:9]
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        except (OSError, ValueError):
            return None
        ticks = os.sysconf("SC_CLK_TCK")
        return (user + nice + system + irq + softirq) / ticks, steal / ticks

    def read(self) -> Load:
        """Return the load since this meter was made, as shares of all processors' time."""
        shares: dict[str, float | None] = {"others_cpu_share": None, "steal_share": None}
        counted = self._busy_and_steal()
        if counted is not None and self._counted is not None:
            available = max((self._clock() - self._began[0]) * self._cores, 1e-9)
            busy, steal = (now - then for now, then in zip(counted, self._counted, strict=True))
            others = busy - (self._own_cpu() - self._began[1])
            shares["others_cpu_share"] = min(max(others / available, 0.0), 1.0)
            shares["steal_share"] = min(max(steal / available, 0.0), 1.0)
        return Load(average_start=self._average_start, average_end=os.getloadavg()[0], **shares)


def load_warnings(load: Load) -> list[str]:
    """Return a warning for each share that passed its threshold."""
    found = []
    if load.others_cpu_share is not None and load.others_cpu_share > OTHERS_WARN:
        found.append(
            f"other processes took {load.others_cpu_share:.0%} of the processors: times are too long"
        )
    if load.steal_share is not None and load.steal_share > STEAL_WARN:
        found.append(
            f"the hypervisor took {load.steal_share:.0%} of the processors: times are too long"
        )
    return found
