"""The samples of one instrument, and the pace at which they are taken."""

from __future__ import annotations

import itertools
import statistics

from ftbench.worker.measure.sampler.reading import Instrument

# Samples that are kept; beyond, every second one goes.
MOST_SAMPLES = 20_000
# A reading that costs more processor time than this is not repeated at the end of every entry into a
# phase, only at that of the first.
DEAR_S = 0.002
# How much the newest cost counts in the running mean that sets the period.
_NEWEST = 0.25


class Pace:
    """When the next sample is due: as soon as the processor time that the last ones cost allows.

    A sample that was asked for out of turn costs too, and puts the next one off further. Time
    that went unused is not saved up.
    """

    def __init__(self, floor_s: float, budget: float) -> None:
        self._floor_s = floor_s
        self._budget = budget
        self._cost_s: float | None = None
        self._paid_s = 0.0
        self.due_s = 0.0

    @property
    def dear(self) -> bool:
        """Return whether a sample costs so much that none is taken without need."""
        return (self._cost_s or 0.0) > DEAR_S

    @property
    def period_s(self) -> float:
        """Return the seconds from one sample to the next where none is asked for out of turn."""
        return max(self._floor_s, (self._cost_s or 0.0) / self._budget)

    def spent(self, cpu_s: float, now_s: float) -> None:
        """Take note of the processor seconds that a sample cost, one dear sample not too much."""
        before = cpu_s if self._cost_s is None else self._cost_s
        self._cost_s = before + (cpu_s - before) * _NEWEST
        self._paid_s = max(self._paid_s, now_s) + self._cost_s / self._budget
        self.due_s = max(now_s + self._floor_s, self._paid_s)


class Series:
    """The samples of one instrument: when the next is due, the phase's peaks, those kept."""

    def __init__(self, instrument: Instrument, pace: Pace, most: int = MOST_SAMPLES) -> None:
        self.instrument = instrument
        self.pace = pace
        self.count = 0
        self.peaks: dict[str, int] = {}
        self.absent: dict[str, str] = {}
        self.last: dict[str, int] = {}
        self.kept: list[tuple[float, str | None, dict[str, int]]] = []
        self._most = most
        self._stride = 1
        self._closed: set[str | None] = set()  # phases that were read as they ended
        self.at_boundary = False  # the last reading closed a phase, just now

    def sample(self, now_s: float, phase: str | None) -> None:
        """Read the instrument once."""
        figures, absent = self.instrument.read()
        for name, value in figures.items():
            self.peaks[name] = max(value, self.peaks.get(name, 0))
        self.absent |= absent
        self.last = figures
        if self.count % self._stride == 0:
            self.kept.append((now_s, phase, figures))
        self.count += 1
        if len(self.kept) >= self._most:
            self.kept = self.kept[::2]
            self._stride *= 2

    def wants(self, phase: str | None) -> bool:
        """Return whether a phase that ends is to be read: it never was, or reading costs little."""
        return phase not in self._closed or not self.pace.dear

    def close(self, phase: str | None) -> None:
        """Note that the last reading was one of a phase's end."""
        self._closed.add(phase)
        self.at_boundary = True

    def begin(self) -> None:
        """Begin new peaks: at the reading that closed the last phase, else at none."""
        self.peaks = dict(self.last) if self.at_boundary else {}
        self.at_boundary = False
        self.absent = {}

    def period_s(self) -> float:
        """Return the median time between samples, or the intended one where there are too few."""
        times = [sample[0] for sample in self.kept]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return statistics.median(gaps) / self._stride if gaps else self.pace.period_s
