"""A sampler: answers the worker's commands, and samples in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ftbench.worker.measure.sampler.card_memory import CardMemory
from ftbench.worker.measure.sampler.series import MOST_SAMPLES, Pace, Series
from ftbench.worker.measure.sampler.tree_memory import PSS, TreeMemory

# Processor time that sampling may take, as a share of one processor.
CPU_BUDGET = 0.005
NVML_FLOOR_S = 0.020
# Reading `smaps_rollup` walks the page tables of the process under its memory lock.
PSS_FLOOR_S = 0.050


class Sampler:
    """The series of each instrument, and the current phase."""

    def __init__(
        self,
        tree: TreeMemory | None,
        card: CardMemory | None,
        *,
        period_floor_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._card = card
        possible = [(tree, PSS_FLOOR_S), (card, NVML_FLOOR_S)]
        instruments = [(one, floor_s) for one, floor_s in possible if one is not None]
        self._series = [
            Series(
                instrument,
                Pace(max(floor_s, period_floor_s), CPU_BUDGET / len(instruments)),
                MOST_SAMPLES // len(instruments),
            )
            for instrument, floor_s in instruments
        ]
        self._phase: str | None = None
        self._running = False
        self._settled = True
        self._began = (clock(), cpu_clock())
        self._accounted_s = self._began[1]
        self._beside_s = 0.0  # spent while the worker was running instead of waiting for an answer

    def wait_s(self) -> float | None:
        """Return the seconds until a sample is due; None before the first phase or without instruments."""
        if not self._running or not self._series:
            return None
        return max(0.0, min(series.pace.due_s for series in self._series) - self._clock())

    def sample_due(self) -> None:
        """Take the samples that are due."""
        now_s = self._clock()
        before_s = self._accounted_s
        self._sample([series for series in self._series if series.pace.due_s <= now_s])
        self._beside_s += self._accounted_s - before_s

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a command of the worker."""
        match command["command"]:
            case "idle":
                return self._idle()
            case "start":
                self._start(command.get("phase"))
            case "read":
                wanted = [series for series in self._series if series.wants(self._phase)]
                self._sample(wanted)
                for series in wanted:
                    series.close(self._phase)
            case "stop":
                return self._report() | self._totals()
            case other:
                raise ValueError(f"no such command: {other!r}; expected idle, start, read, stop")
        return self._report()

    def _idle(self) -> dict[str, Any]:
        readings = [s.instrument.read() for s in self._series if s.instrument is not self._card]
        if self._card is not None:
            reading, self._settled = self._card.settle()
            readings.append(reading)
        figures = {name: value for reading in readings for name, value in reading.figures.items()}
        absent = {name: reason for reading in readings for name, reason in reading.absent.items()}
        self._began = (self._clock(), self._cpu_clock())  # time before this point is not sampling
        self._beside_s = 0.0
        self._accounted_s = self._began[1]
        return self._report() | {"figures": figures, "absent": absent}

    def _start(self, phase: str | None) -> None:
        """Begin new peaks at the reading that closed the last phase, else at one taken now."""
        self._phase = phase
        self._running = True
        for series in self._series:
            series.begin()
        if not any(series.count for series in self._series):
            self._sample(self._series)

    def _sample(self, due: Sequence[Series]) -> None:
        for series in due:
            series.sample(self._clock(), self._phase)
            series.at_boundary = False
            # All processor time since the last sample counts as this sample's, including waking up.
            spent_s = self._cpu_clock()
            series.pace.spent(spent_s - self._accounted_s, self._clock())
            self._accounted_s = spent_s

    def _report(self) -> dict[str, Any]:
        """Return the phase's peaks, and the totals so far that are cheap to report."""
        peaks = {name: value for series in self._series for name, value in series.peaks.items()}
        report: dict[str, Any] = {
            "figures": peaks,
            "absent": {
                name: reason
                for series in self._series
                for name, reason in series.absent.items()
                if name not in peaks
            },
            "settled": self._settled,
            "elapsed_s": self._clock() - self._began[0],
            "cpu_s": self._cpu_clock() - self._began[1],
            "beside_s": self._beside_s,
        }
        if self._card is None:
            return report
        card = self._card.totals()
        if card["gone"]:
            lost = dict.fromkeys(("peak_device_bytes", "peak_process_bytes"), card["gone"])
            report["figures"] = {k: v for k, v in peaks.items() if k not in lost}
            report["absent"] |= lost
        return report | {"energy_mj": self._card.energy_mj(), "card": card}

    def _totals(self) -> dict[str, Any]:
        """Return the samples in order (time, phase, PSS, process, device), their period and their number.

        Period and number are those of the instrument that was read least often.
        """
        slowest = max(self._series, key=Series.period_s, default=None)
        fields = (PSS, "peak_process_bytes", "peak_device_bytes")
        samples = [
            (now_s, phase, *(figures.get(field) for field in fields))
            for series in self._series
            for now_s, phase, figures in series.kept
        ]
        return {
            "period_s": slowest.period_s() if slowest else None,
            "count": slowest.count if slowest else 0,
            "samples": sorted(samples, key=lambda sample: sample[0]),
        }
