"""The process beside a worker that samples what has no peak of its own: NVML and PSS.

`python -m ftbench.worker.measure.sampler PID [--uuid UUID] [--pss] [--period-floor-s S]` is started by the
worker (`ftbench.worker.measure.meters.sampled`). It is a process and not a thread, so that it never holds
the training process's GIL and is not in its memory; it imports nothing large. Each line of its
stdin is a JSON object with a `command`, answered by one JSON line on stdout:

    idle   read once now, on a card after its memory has settled
    start  begin new peaks for `phase`, and sample from now on
    read   sample once more now, so that the shortest phase has a figure; answer the peaks
    stop   answer the totals and the samples, and end

It ends with the worker: by the kernel's signal, and where its stdin ends.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ftbench.worker.process.lifeline import die_with_parent

if TYPE_CHECKING:
    from ftbench.worker.measure.meters.nvml import CardReading, NvmlCard

# Processor time that sampling may take, as a share of one processor.
CPU_BUDGET = 0.005
NVML_FLOOR_S = 0.020
# `smaps_rollup` walks the page tables of the process that it is about, under its memory lock.
PSS_FLOOR_S = 0.050
# Samples that are kept; beyond, every second one goes.
MOST_SAMPLES = 20_000
# Memory that a process gave back can reach the card late (vLLM: 8 failures in 3,288 runs).
SETTLE_S = 5.0
SETTLE_INTERVAL_S = 0.1
# A reading that costs more processor time than this is not repeated at the end of every entry into a
# phase, only at that of the first.
DEAR_S = 0.002
# How much the newest cost counts in the running mean that sets the period.
_NEWEST = 0.25

PSS = "peak_pss_bytes"


class Reading(NamedTuple):
    """Bytes by field of `ftbench.records.record.Memory`, and why a field has none."""

    figures: dict[str, int]
    absent: dict[str, str]


class Instrument(Protocol):
    """Something that is read at intervals."""

    def read(self) -> Reading:
        """Return a reading of now."""

    def totals(self) -> dict[str, Any]:
        """Return what else was seen over all readings, for JSON."""


class TreeMemory:
    """Proportional set size (proc(5), smaps_rollup) of a process and its descendants, summed.

    A page that several processes share is divided among them, so nothing is counted twice. One
    process (the sampler) is left out; one that ends while it is looked at is skipped.

    Not by psutil: its children() reads the stat file of every process of the machine, which makes a
    sample three times as dear on one with 90 (6.2 ms for 1.9), and where smaps_rollup is missing it
    walks smaps, and says 0 of what has no Pss.
    """

    def __init__(self, pid: int, leave_out: int, proc: Path = Path("/proc")) -> None:
        self._pid = pid
        self._leave_out = leave_out
        self._proc = proc

    def read(self) -> Reading:
        """Return the sum, or why it can't be had: a part that is unreadable leaves no figure."""
        try:
            figures = [_pss_bytes(self._proc / str(pid)) for pid in self._tree(self._pid)]
        except (OSError, ValueError) as error:
            return Reading({}, {PSS: f"PSS: {error}"})
        if figures[0] is None:
            reason = "PSS: the worker has no smaps_rollup (Linux 4.14 and newer have)"
            return Reading({}, {PSS: reason})
        return Reading({PSS: sum(figure for figure in figures if figure is not None)}, {})

    def totals(self) -> dict[str, Any]:
        """Return nothing more."""
        return {}

    def _tree(self, pid: int) -> Iterator[int]:
        yield pid
        for child in _children(self._proc, pid):
            if child != self._leave_out:
                yield from self._tree(child)


def _pss_bytes(process: Path) -> int | None:
    """Return a process's PSS; None where it has ended (a zombie has no memory either)."""
    try:
        text = (process / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{process / 'smaps_rollup'} has no Pss")


def _children(proc: Path, pid: int) -> list[int]:
    """Return the children of all threads of a process, none where it has ended."""
    tasks = proc / str(pid) / "task"
    try:
        lists = [_read_if_there(task / "children") for task in tasks.iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    if lists and all(text is None for text in lists):  # a kernel without CONFIG_PROC_CHILDREN
        return _children_by_parent(proc, pid)
    return [int(child) for text in lists for child in (text or "").split()]


def _children_by_parent(proc: Path, pid: int) -> list[int]:
    """Return the processes that name this one as their parent, from a look at all processes."""
    found = []
    for process in proc.iterdir():
        # PID (name, which may hold anything) state parent ...
        stat = _read_if_there(process / "stat") if process.name.isdigit() else None
        if stat and int(stat.rpartition(")")[2].split()[1]) == pid:
            found.append(int(process.name))
    return found


def _read_if_there(file: Path) -> str | None:
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None


class CardMemory:
    """Readings of a card, with a tally of who else was on it and of what slowed it."""

    def __init__(self, card: NvmlCard) -> None:
        self._card = card
        self._readings = 0  # since the first phase began, as everything below
        self._slowed = 0
        self._slowing: dict[str, int] = {}
        self._listed = False
        self._others: dict[int, int | None] = {}
        self._before: set[int] = set()
        self._most_newcomers = 0

    def read(self) -> Reading:
        """Return the card's figures, and add what else was seen to the tally."""
        reading = self._card.read()
        self._count(reading)
        return self._figures(reading)

    def settle(self, wait: Callable[[float], None] = time.sleep) -> tuple[Reading, bool]:
        """Return a reading once two in a row have the same device memory, and whether they had."""
        reading = self._card.read()
        for _ in range(round(SETTLE_S / SETTLE_INTERVAL_S)):
            before = reading.device_bytes
            wait(SETTLE_INTERVAL_S)
            reading = self._card.read()
            if reading.device_bytes == before:
                break
        self._before = set(reading.others or {})
        return self._figures(reading), reading.device_bytes == before

    def energy_mj(self) -> int | None:
        """Return the card's energy counter, in millijoules."""
        return self._card.energy_mj()

    def totals(self) -> dict[str, Any]:
        """Return the tally."""
        return {
            "gone": self._card.gone,
            "sources": self._card.sources(),
            "slowed_share": self._slowed / self._readings if self._readings else 0.0,
            "slowing": self._slowing,
            "tenants": self._tenants(),
        }

    def _tenants(self) -> list[tuple[int | None, int | None]]:
        """Return PID and highest bytes of each other process on the card.

        Where the driver never listed our PID (a container), one of the processes that came after
        the idle reading may be this one under its PID on the host: it is not held against anybody.
        """
        if self._listed:
            return list(self._others.items())
        known = [(pid, size) for pid, size in self._others.items() if pid in self._before]
        return known + [(None, None)] * (self._most_newcomers - 1)

    def _count(self, reading: CardReading) -> None:
        self._readings += 1
        self._slowed += bool(reading.slowing)
        for reason in reading.slowing or ():
            self._slowing[reason] = self._slowing.get(reason, 0) + 1
        self._listed |= reading.listed
        others = reading.others or {}
        for pid, size in others.items():
            sizes = [known for known in (size, self._others.get(pid)) if known is not None]
            self._others[pid] = max(sizes, default=None)
        self._most_newcomers = max(self._most_newcomers, len(others.keys() - self._before))

    @staticmethod
    def _figures(reading: CardReading) -> Reading:
        figures = {
            "peak_device_bytes": reading.device_bytes,
            "peak_process_bytes": reading.process_bytes,
        }
        return Reading({k: v for k, v in figures.items() if v is not None}, reading.absent)


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


class Sampler:
    """Answers the worker's commands, and samples in between."""

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
        wanted = [(tree, PSS_FLOOR_S), (card, NVML_FLOOR_S)]
        instruments = [(found, floor_s) for found, floor_s in wanted if found is not None]
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
        self._beside_s = 0.0  # spent while the worker went on, and did not wait for an answer

    def wait_s(self) -> float | None:
        """Return the seconds until a sample is due; None before the first phase: none ever is."""
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
        self._began = (self._clock(), self._cpu_clock())  # starting and settling are not sampling
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
            # All processor time since the last sample is this one's, waking up included.
            spent_s = self._cpu_clock()
            series.pace.spent(spent_s - self._accounted_s, self._clock())
            self._accounted_s = spent_s

    def _report(self) -> dict[str, Any]:
        """Return the phase's peaks, and everything seen so far that costs little to say."""
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
        """Return the samples in order (time, phase, PSS, process, device), and how many were taken.

        Period and count are those of the instrument that was read least often.
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


def serve(sampler: Sampler, source: int, say: Callable[[str], object]) -> None:
    """Answer commands and take samples until `stop`, or until the worker is gone."""
    pending = b""
    while True:
        ready, _, _ = select.select([source], [], [], sampler.wait_s())
        if not ready:
            sampler.sample_due()
            continue
        chunk = os.read(source, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            command = json.loads(line)
            say(json.dumps(sampler.answer(command)) + "\n")
            if command["command"] == "stop":
                return


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample one worker until it stops this process."""
    parser = argparse.ArgumentParser("ftbench.worker.measure.sampler")
    parser.add_argument("pid", type=int, help="the worker, which started this process")
    parser.add_argument("--uuid", help="the card that it uses")
    parser.add_argument("--pss", action="store_true", help="sample PSS of its process tree")
    parser.add_argument("--period-floor-s", type=float, default=0.0, help="sample no more often")
    options = parser.parse_args(arguments)
    die_with_parent(options.pid)
    card = None
    if options.uuid:
        from ftbench.worker.measure.meters.nvml import (
            NvmlCard,  # only here: ctypes and a large module
        )

        card = CardMemory(NvmlCard(options.uuid, options.pid))
    tree = TreeMemory(options.pid, leave_out=os.getpid()) if options.pss else None
    sampler = Sampler(tree, card, period_floor_s=options.period_floor_s)

    def say(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    serve(sampler, sys.stdin.fileno(), say)


if __name__ == "__main__":
    main()
