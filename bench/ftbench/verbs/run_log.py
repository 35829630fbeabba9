"""Run log: the progress of a run as messages of Python's logging, under the name `ftbench`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ftbench.base.units import counted, format_seconds
from ftbench.execute.jobs import Job
from ftbench.plan.cell_names import naming_axes
from ftbench.records.messages import Progress
from ftbench.records.record import Record
from ftbench.records.run_directory import Damaged
from ftbench.report.elements.words import axis_word, score_word

CENTRE = "the centre"
_LOG = logging.getLogger("ftbench")


class RunLog:
    """A `Listener` that logs the beginning and the end of each run."""

    def __init__(self, axes: Sequence[str]) -> None:
        self._axes = axes
        self._names = naming_axes([], axes)
        self._jobs = 0
        self._done = 0

    def planned(self, jobs: Sequence[Job], done: Sequence[Job]) -> None:
        """Log how many runs there are."""
        self._jobs = len(jobs)
        self._names = naming_axes(
            list(dict.fromkeys(job.cell for job in (*jobs, *done))), self._axes
        )
        _LOG.info("%s to do, %d done already", counted(len(jobs), "run"), len(done))

    def preparing(self, progress: Progress) -> None:
        """Log the progress of the prepare stage."""
        _LOG.info("preparing: %s", progress.phase)

    def started(self, job: Job) -> None:
        """Log which run begins."""
        _LOG.info("%s: starting", run_name(job, self._names(job.cell)))

    def progress(self, job: Job, progress: Progress) -> None:
        """Log the progress of a run, for those who want it all."""
        _LOG.debug("%s: %s", run_name(job, self._names(job.cell)), progress)

    def finished(self, job: Job, record: Record) -> None:
        """Log a run's result; a failure, and figures that are not to be trusted, as warnings."""
        self._done += 1
        name = run_name(job, self._names(job.cell))
        place = f"[{self._done}/{self._jobs}] {name}"
        _LOG.info(
            "%s: %s, %s%s", place, record.status, format_seconds(record.wall_s), score_text(record)
        )
        if record.failure is not None:
            _LOG.warning("%s: %s", name, record.failure.message)
        for path, reason in record.untrusted.items():
            _LOG.warning("%s: untrusted: %s: %s", name, path, reason)

    def set_aside(self, damaged: Damaged, kept: Path) -> None:
        """Log that a record could not be read, and its new path."""
        _LOG.warning(
            "%s %s; moved to %s, its cell is run again", damaged.file.name, damaged.reason, kept
        )


def run_name(job: Job, axes: Sequence[str]) -> str:
    """Return a run's name: its cell's values on these axes, and its number if the cell has several."""
    values = [f"{axis_word(axis)} {job.cell.value(axis)}" for axis in axes] or [CENTRE]
    runs = (("replicate", job.replicate), ("repeat", job.repeat))
    return ", ".join([*values, *(f"{word} {number}" for word, number in runs if number)])


def score_text(record: Record) -> str:
    """Return the first score of a record, after a comma; nothing without one."""
    scores = record.measurement.scores[:1] if record.measurement else ()
    return "".join(f", {score_word(score.name)} {score.value:.3f}" for score in scores)
