"""The samples of one instrument, and the pace at which they are taken."""

from __future__ import annotations

import itertools
import statistics

from ftbench.worker.measure.sampler.reading import Instrument

# The largest number of samples kept; when it is reached, every second sample is dropped.
MOST_SAMPLES = 20_000
# A reading that costs more processor time than this is taken only at the end of the first entry into a
# phase, not of every entry.
DEAR_S = 0.002
# The weight of the newest cost in the running mean that sets the period.
_NEWEST = 0.25


class Pace:
    """The time of the next sample: as soon as the budget of processor time allows after the last samples.

    An additional sample that a command requests also costs time, and delays the next one further. Unused
    time is not saved up.
    """

    def __init__(self, floor_s: float, budget: float) -> None:
        self._floor_s = floor_s
        self._budget = budget
        self._cost_s: float | None = None
        self._paid_s = 0.0
        self.due_s = 0.0

    @property
    def dear(self) -> bool:
        """Return whether a sample is so expensive that it is taken only if needed."""
        return (self._cost_s or 0.0) > DEAR_S

    @property
    def period_s(self) -> float:
        """Return the seconds from one sample to the next, without additional samples."""
        return max(self._floor_s, (self._cost_s or 0.0) / self._budget)

    def spent(self, cpu_s: float, now_s: float) -> None:
        """Record the processor seconds of a sample; a running mean keeps one expensive sample from dominating."""
        before = cpu_s if self._cost_s is None else self._cost_s
        self._cost_s = before + (cpu_s - before) * _NEWEST
        self._paid_s = max(self._paid_s, now_s) + self._cost_s / self._budget
        self.due_s = max(now_s + self._floor_s, self._paid_s)


class Series:
    """The samples of one instrument: the pace, the phase's peaks, and the samples kept."""

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
        self._closed: set[str | None] = set()  # phases with a reading at their end
        self.at_boundary = False  # whether the last reading was at the end of a phase

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
        """Return whether to read at the end of a phase: if it was never read there, or reading is cheap."""
        return phase not in self._closed or not self.pace.dear

    def close(self, phase: str | None) -> None:
        """Record that the last reading was at the end of a phase."""
        self._closed.add(phase)
        self.at_boundary = True

    def begin(self) -> None:
        """Begin new peaks, with the reading at the end of the last phase if there was one."""
        self.peaks = dict(self.last) if self.at_boundary else {}
        self.at_boundary = False
        self.absent = {}

    def period_s(self) -> float:
        """Return the median seconds between samples, or the intended ones if there are too few samples."""
        times = [sample[0] for sample in self.kept]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return statistics.median(gaps) / self._stride if gaps else self.pace.period_s
