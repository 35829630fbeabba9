"""Listener: receives the progress of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ftbench.execute.jobs import Job
from ftbench.records.messages import (
    Progress,
)
from ftbench.records.record import (
    Record,
)
from ftbench.records.run_directory import Damaged


class Listener(Protocol):
    """Receives the progress of a run; the command line shows it."""

    def planned(self, jobs: Sequence[Job], done: Sequence[Job]) -> None:
        """Receive the jobs that will be run, and those that earlier runs have done."""

    def preparing(self, progress: Progress) -> None:
        """Receive the progress of the prepare stage."""

    def started(self, job: Job) -> None:
        """Receive a job when it starts."""

    def progress(self, job: Job, progress: Progress) -> None:
        """Receive the progress of a job."""

    def finished(self, job: Job, record: Record) -> None:
        """Receive a job and its record when it has ended."""

    def set_aside(self, damaged: Damaged, kept: Path) -> None:
        """Receive a record that could not be read, and the path that it was moved to."""
