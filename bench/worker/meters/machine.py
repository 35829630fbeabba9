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


class MachineLoad:
    """Processor time of other processes, and time stolen by the hypervisor, between start and read."""

    def __init__(
        self,
        stat: Path = Path("/proc/stat"),
        *,
        clock: Callable[[], float] = time.monotonic,
        own_cpu: Callable[[], float] = time.process_time,
        cores: int | None = None,
    ) -> None:
        self._stat = stat
        self._clock = clock
        self._own_cpu = own_cpu
        self._cores = cores or os.cpu_count() or 1
        self._average_start = os.getloadavg()[0]
        self._began = (clock(), own_cpu(), *self._busy_and_steal())

    def _busy_and_steal(self) -> tuple[float, float]:
        """Return (busy, stolen) processor seconds since boot, over all processors."""
        try:
            fields = self._stat.read_text().split("\n", 1)[0].split()[1:9]
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        except (OSError, ValueError):
            return 0.0, 0.0
        ticks = os.sysconf("SC_CLK_TCK")
        return (user + nice + system + irq + softirq) / ticks, steal / ticks

    def read(self) -> Load:
        """Return the load since this meter was made, as shares of all processors' time."""
        began, own_began, busy_began, steal_began = self._began
        busy, steal = self._busy_and_steal()
        available = max((self._clock() - began) * self._cores, 1e-9)
        own = self._own_cpu() - own_began
        return Load(
            average_start=self._average_start,
            average_end=os.getloadavg()[0],
            others_cpu_share=min(max((busy - busy_began - own) / available, 0.0), 1.0),
            steal_share=min(max((steal - steal_began) / available, 0.0), 1.0),
        )


def load_warnings(load: Load) -> list[str]:
    """Return a warning for each share that passed its threshold."""
    found = []
    if load.others_cpu_share > OTHERS_WARN:
        found.append(
            f"other processes took {load.others_cpu_share:.0%} of the processors: times are too long"
        )
    if load.steal_share > STEAL_WARN:
        found.append(
            f"the hypervisor took {load.steal_share:.0%} of the processors: times are too long"
        )
    return found
