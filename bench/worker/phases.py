"""Phases: who the seconds, the CPU seconds and the peaks of a cell belong to.

At every moment one phase is running. Entering another closes the running one, so the phases of a
cell add up to its whole time, and each peak belongs to the phase in which it was reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.record import Memory, Phase, PhaseName
from bench.worker.meters import MemoryMeter


class _Tally:
    """What one phase has gathered so far."""

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.entries = 0
        self.peaks: dict[str, int] = {}

    def add_peaks(self, peaks: dict[str, int]) -> None:
        for name, value in peaks.items():
            self.peaks[name] = max(value, self.peaks.get(name, 0))


class PhaseBook:
    """Books time and memory on the phase that is running."""

    def __init__(
        self,
        meters: Sequence[MemoryMeter],
        *,
        synchronize: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
        on_enter: Callable[[PhaseName], None] = lambda _: None,
    ) -> None:
        """Make a book; `synchronize` waits for the device, so that its work is booked where it belongs."""
        self._meters = meters
        self._synchronize = synchronize
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._on_enter = on_enter
        self._tallies: dict[PhaseName, _Tally] = {}
        self._running: PhaseName | None = None
        self._failed: PhaseName | None = None
        self._began = (0.0, 0.0)

    @property
    def running(self) -> PhaseName | None:
        """Return the phase that is running."""
        return self._running

    @property
    def failed(self) -> PhaseName | None:
        """Return the innermost phase that an error came out of, else the one that is running."""
        return self._failed or self._running

    def enter(self, name: PhaseName | None) -> PhaseName | None:
        """Close the running phase, begin another (or none), and return the one that was running."""
        previous = self._running
        self._synchronize()
        now = (self._clock(), self._cpu_clock())
        if previous is not None:
            tally = self._tallies[previous]
            tally.wall_s += now[0] - self._began[0]
            tally.cpu_s += now[1] - self._began[1]
            for meter in self._meters:
                tally.add_peaks(meter.read())
        if name is not None:
            self._tallies.setdefault(name, _Tally()).entries += 1
            for meter in self._meters:
                meter.start()
            self._on_enter(name)
        self._running = name
        self._began = now
        return previous

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Run a block in a phase, then go back to the phase that it interrupted."""
        previous = self.enter(name)
        try:
            yield
        except BaseException:
            self._failed = self._failed or name
            raise
        finally:
            self.enter(previous)

    def phases(self) -> dict[PhaseName, Phase]:
        """Return what was booked on each phase entered so far."""
        return {
            name: Phase(
                wall_s=tally.wall_s,
                cpu_s=tally.cpu_s,
                entries=tally.entries,
                memory=Memory(**tally.peaks),
            )
            for name, tally in self._tallies.items()
        }

    def peaks(self) -> Memory:
        """Return each peak over all phases."""
        total = _Tally()
        for tally in self._tallies.values():
            total.add_peaks(tally.peaks)
        return Memory(**total.peaks)

    def absent(self) -> dict[str, str]:
        """Return why a memory figure is missing, by its path in the measurement."""
        known = self.peaks().model_dump(exclude_none=True)
        return {
            f"memory.{name}": reason
            for meter in self._meters
            for name, reason in meter.absent().items()
            if name not in known
        }
