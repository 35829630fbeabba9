"""The progress of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from ftbench.base.text import printable
from ftbench.base.units import counted, format_bytes, format_seconds
from ftbench.execute.jobs import Job
from ftbench.plan.cell_names import naming_axes
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.messages import Progress
from ftbench.records.record import Record
from ftbench.records.run_directory import Damaged
from ftbench.verbs.run_log import run_name, score_text

REFRESHES_PER_S = 2.0  # the display must not take a core from the measured process
SILENCE_S = (
    30.0  # a log has a line at least this often, so that nobody takes a long cell for a hang
)
_BAR_WIDTH = 16


class RunDisplay:
    """A `Listener` that shows the cells done, the current one's step and loss, and the time left."""

    def __init__(self, console: Console, axes: Sequence[str]) -> None:
        self._console = console
        self._axes = axes
        self._remaining_work = 0.0
        self._finished: list[tuple[float, float]] = []  # (work, seconds) of cells done in this run
        self._jobs = 0
        self._done = 0
        self._where = ""
        self._names = naming_axes([], axes)
        self._latest = ""  # the position of the running cell, for a log
        self._said_at = time.monotonic()
        self._closed = threading.Event()
        self._live: RichProgress | None = None
        self._overall: TaskID | None = None
        self._current: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # The name of a cell is the one column that may be cut: counts and the time left never are.
            self._live = RichProgress(
                MofNCompleteColumn(),
                BarColumn(bar_width=_BAR_WIDTH),
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
                TextColumn(
                    "{task.description}",
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
                expand=True,
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start()
        else:
            threading.Thread(target=self._break_silence, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._live is not None:
            self._live.stop()

    def _break_silence(self) -> None:
        """Print the position of the running cell whenever there was no line for a while."""
        while not self._closed.wait(1.0):
            if time.monotonic() - self._said_at >= SILENCE_S and self._latest:
                self._say(f"    {self._latest}")

    def planned(self, jobs: Sequence[Job], done: Sequence[Job]) -> None:
        """Show how many cells there are, and begin the display."""
        self._jobs = len(jobs)
        cells = list(dict.fromkeys(job.cell for job in (*jobs, *done)))
        self._names = naming_axes(cells, self._axes)
        self._remaining_work = sum(job.work for job in jobs)
        if done:
            whole = counted(len(jobs) + len(done), "run")
            self._say(f"{len(done)} of {whole} {'is' if len(done) == 1 else 'are'} done already")
        if self._live is not None and jobs:
            self._overall = self._live.add_task("cells", total=len(jobs), note="")
            self._current = self._live.add_task("preparing", total=None, note="")
        elif jobs:
            self._say(f"preparing {counted(len(jobs), 'run')}")

    def preparing(self, progress: Progress) -> None:
        """Show the progress of the prepare stage."""
        self._latest = f"preparing: {progress.phase}"
        if self._live is not None and self._current is not None:
            self._live.update(self._current, note=progress.phase)

    def started(self, job: Job) -> None:
        """Show which cell begins."""
        self._where = ""
        self._latest = f"{self.name(job)}: starting"
        if self._live is not None and self._current is not None:
            self._live.reset(self._current, total=None, description=self.name(job), note="starting")

    def progress(self, job: Job, progress: Progress) -> None:
        """Show the progress of the cell."""
        phase = progress.phase.replace("_", " ")
        at = "" if progress.step is None else f", step {progress.step} of {progress.max_steps}"
        self._latest = f"{self.name(job)}: {phase}{at}"
        if self._live is None or self._current is None:
            return
        if progress.step is None:  # only the phase changed: the last epoch and loss stay
            self._live.update(self._current, note=f"{phase}{self._where}")
            return
        epoch = f", epoch {progress.epoch:.2f}" if progress.epoch is not None else ""
        loss = f", loss {progress.loss:.3f}" if progress.loss is not None else ""
        self._where = epoch + loss
        self._live.update(
            self._current,
            completed=progress.step,
            total=progress.max_steps,
            note=f"{phase}{self._where}",
        )

    def finished(self, job: Job, record: Record) -> None:
        """Show the cell's result, and the time left."""
        self._done += 1
        self._remaining_work -= job.work
        if record.status == "ok":
            self._finished.append((job.work, record.wall_s))
        left = self.seconds_left()
        note = (
            f"{format_seconds(left)} left" if left is not None and self._done < self._jobs else ""
        )
        result = score_text(record)
        suffix = f" ({note})" if note and self._live is None else ""
        self._say(
            f"[{self._done}/{self._jobs}] {self.name(job)}: {record.status},"
            f" {format_seconds(record.wall_s)}{result}{suffix}"
        )
        if record.failure is not None:
            self._say(f"    {record.failure.message}")
        for path, reason in record.untrusted.items():
            self._say(f"    untrusted: {path}: {reason}")
        if self._live is not None and self._overall is not None:
            self._live.update(self._overall, advance=1, note=note)

    def seconds_left(self) -> float | None:
        """Return the time left, from the work per second of finished cells; None before the first."""
        work = sum(work for work, _ in self._finished)
        return self._remaining_work * sum(s for _, s in self._finished) / work if work else None

    def name(self, job: Job) -> str:
        """Return a cell's name: its values on the axes that tell it apart."""
        return run_name(job, self._names(job.cell))

    def set_aside(self, damaged: Damaged, kept: Path) -> None:
        """Show that a record could not be read, and its new path."""
        self._say(f"{damaged.file.name} {damaged.reason}; moved to {kept}, its cell is run again")

    def _say(self, text: str) -> None:
        self._said_at = time.monotonic()
        self._console.print(Text(printable(text)), soft_wrap=True)


class FrontierDisplay:
    """A `SearchListener` that prints one line per probe."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def preparing(self, progress: Progress) -> None:
        """Show the progress of the prepare stage."""
        self._console.print(Text(f"preparing: {progress.phase}"), soft_wrap=True)

    def tried(self, probe: BatchProbe) -> None:
        """Show a probe's result."""
        verdict = {True: "fits", False: "does not fit", None: probe.status}[probe.fits]
        peak = f", peak {format_bytes(probe.peak_bytes)}" if probe.peak_bytes is not None else ""
        self._console.print(
            Text(
                f"length {probe.cell.max_length}, batch {probe.batch}: {verdict}{peak},"
                f" {format_seconds(probe.wall_s)}"
            ),
            soft_wrap=True,
        )
