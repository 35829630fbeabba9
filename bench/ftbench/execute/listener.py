"""Listener: who is told how a run goes on."""

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
    """Is told how a run goes on; the command line shows it."""

    def planned(self, jobs: Sequence[Job], done: Sequence[Job]) -> None:
        """Tell what is to be run, and what is there already."""

    def preparing(self, progress: Progress) -> None:
        """Tell where the prepare stage is."""

    def started(self, job: Job) -> None:
        """Tell that a cell begins."""

    def progress(self, job: Job, progress: Progress) -> None:
        """Tell where a cell is."""

    def finished(self, job: Job, record: Record) -> None:
        """Tell how a cell ended."""

    def set_aside(self, damaged: Damaged, kept: Path) -> None:
        """Tell that a record could not be read, and where it was moved."""
