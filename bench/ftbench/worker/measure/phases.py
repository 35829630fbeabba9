"""Phases: assigns the seconds, CPU seconds and memory peaks of a cell to its phases.

At every moment one phase is running. Entering another closes the running one, so the phases of a cell add up
to its whole time, except the time of reading meters in between, which is recorded separately. Each peak
belongs to the phase in which it was reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ftbench.records.readings import Memory, Phase, PhaseName
from ftbench.worker.measure.meters import MemoryMeter, Withdrawing
from ftbench.worker.measure.meters.processor import ProcessorUse, processor_use


class _Tally:
    """The sums and peaks of one phase so far."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.kernel_s = 0.0
        self.page_faults = 0
        self.entries = 0
        self.energy_j: float | None = None
        self.peaks: dict[str, int] = {}

    def add_use(self, use: ProcessorUse) -> None:
        self.cpu_s += use.cpu_s
        self.kernel_s += use.kernel_s
        self.page_faults += use.page_faults

    def add_peaks(self, peaks: dict[str, int]) -> None:
        for name, value in peaks.items():
            self.peaks[name] = max(value, self.peaks.get(name, 0))


class PhaseBook:
    """Adds time and memory to the phase that is running."""

    def __init__(
        self,
        meters: Sequence[MemoryMeter],
        *,
        synchronize: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], ProcessorUse] = processor_use,
        on_enter: Callable[[PhaseName], None] = lambda _: None,
        energy_j: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Make a book, and read the meters before the cell begins.

        `synchronize` waits for the device, so that its work counts in the right phase; `energy_j` returns the
        device's energy counter at the last reading of the meters.
        """
        self._meters = meters
        self._synchronize = synchronize
        self._clock = clock
        self._processor = processor
        self._on_enter = on_enter
        self._energy_j = energy_j
        self._energy_began: float | None = None
        self.metering_s = 0.0
        idle = {name: value for meter in meters for name, value in meter.idle().items()}
        self.idle = Memory(**idle)
        self._idle_absent = {k: v for meter in meters for k, v in meter.absent().items()}
        self._tallies: dict[PhaseName, _Tally] = {}
        self._running: PhaseName | None = None
        self._failed: PhaseName | None = None
        self._began = (0.0, ProcessorUse(0.0, 0.0, 0))

    @property
    def running(self) -> PhaseName | None:
        """Return the phase that is running."""
        return self._running

    @property
    def failed(self) -> PhaseName | None:
        """Return the innermost phase that raised an error, else the one that is running."""
        return self._failed or self._running

    def enter(self, name: PhaseName | None) -> PhaseName | None:
        """Close the running phase, begin another (or none), and return the one that was running."""
        previous = self._running
        self._synchronize()
        now = (self._clock(), self._processor())
        if previous is not None:
            tally = self._tallies[previous]
            tally.wall_s += now[0] - self._began[0]
            tally.add_use(now[1].since(self._began[1]))
            for meter in self._meters:
                tally.add_peaks(meter.read())
            tally.energy_j = _added(tally.energy_j, self._energy_began, self._energy_j())
        if name is not None:
            self._tallies.setdefault(name, _Tally()).entries += 1
            for meter in self._meters:
                meter.start(name)
            self._energy_began = self._energy_j()
            self._on_enter(name)
        self._running = name
        self._began = (self._clock(), self._processor())
        self.metering_s += self._began[0] - now[0]
        return previous

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Run a block in a phase, then return to the phase that it interrupted."""
        previous = self.enter(name)
        try:
            yield
        except BaseException:
            self._failed = self._failed or name
            raise
        finally:
            self.enter(previous)

    def phases(self) -> dict[PhaseName, Phase]:
        """Return the figures of each phase entered so far."""
        return {
            name: Phase(
                wall_s=tally.wall_s,
                cpu_s=tally.cpu_s,
                kernel_s=tally.kernel_s,
                page_faults=tally.page_faults,
                entries=tally.entries,
                energy_j=tally.energy_j,
                memory=_memory(tally.peaks, self._withdrawn()),
            )
            for name, tally in self._tallies.items()
        }

    def peaks(self) -> Memory:
        """Return each peak over all phases."""
        total = _Tally()
        for tally in self._tallies.values():
            total.add_peaks(tally.peaks)
        return _memory(total.peaks, self._withdrawn())

    def sources(self) -> dict[str, str]:
        """Return the source of each figure, by field of `Memory`."""
        known = {k: v for meter in self._meters for k, v in meter.sources().items()}
        if {"peak_process_bytes", "peak_reserved_bytes"} <= known.keys():
            known["context_bytes"] = "peak process less peak reserved"
        return known

    def absent(self) -> dict[str, str]:
        """Return the reasons that memory figures are absent, by path in the measurement."""
        known = self.peaks().model_dump(exclude_none=True)
        reasons = {k: v for meter in self._meters for k, v in meter.absent().items()}
        reasons |= self._withdrawn()
        if "peak_process_bytes" in reasons:
            reasons.setdefault("context_bytes", reasons["peak_process_bytes"])
        missing = {f"memory.{k}": reason for k, reason in reasons.items() if k not in known}
        idle = self.idle.model_dump(exclude_none=True)
        return missing | {
            f"idle.{k}": reason
            for k, reason in self._idle_absent.items()
            if k not in idle and reason != reasons.get(k)
        }

    def _withdrawn(self) -> dict[str, str]:
        """Return the fields whose earlier figures a meter has withdrawn, with the reason."""
        return {
            name: reason
            for meter in self._meters
            if isinstance(meter, Withdrawing)
            for name, reason in meter.withdrawn().items()
        }


def _memory(peaks: dict[str, int], withdrawn: Iterable[str]) -> Memory:
    """Return peaks as `Memory`, with the context if both process and reserved memory are known."""
    known = {name: value for name, value in peaks.items() if name not in set(withdrawn)}
    process, reserved = (known.get(f"peak_{n}_bytes") for n in ("process", "reserved"))
    if process is not None and reserved is not None:
        known["context_bytes"] = process - reserved
    return Memory(**known)


def _added(sum_j: float | None, began_j: float | None, ended_j: float | None) -> float | None:
    """Return a phase's joules plus those between two readings of the counter; None without a counter."""
    if began_j is None or ended_j is None:
        return sum_j
    return (sum_j or 0.0) + ended_j - began_j
