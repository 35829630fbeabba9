"""Jobs: the runs of the cells, in a seeded random order."""

from __future__ import annotations

import dataclasses
import random

from ftbench.plan.cell import Cell
from ftbench.plan.grid import Grid
from ftbench.plan.profile import Profile
from ftbench.plan.schedule import schedule_of
from ftbench.records.record import (
    Identity,
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a cell: each replicate has its own seed, and its repeats have the same seed."""

    cell: Cell
    replicate: int
    repeat: int = 0

    @property
    def identity(self) -> Identity:
        """Return the identity of the job's record."""
        return Identity(self.cell.cell_id, self.replicate, self.repeat)

    @property
    def seed(self) -> int:
        """Return the seed of this replicate."""
        return self.cell.seed + self.replicate

    @property
    def work(self) -> float:
        """Return the approximate amount of work, in forward passes over one token.

        A training step costs about three forward passes. Good enough to foretell the time left from cells
        that finished.
        """
        schedule = schedule_of(self.cell)
        evaluated = schedule.evaluations * schedule.eval_documents
        return (3 * schedule.documents + evaluated) * self.cell.max_length


def plan_jobs(profile: Profile, grid: Grid) -> list[Job]:
    """Return every run of every cell, in a seeded random order.

    In the grid's own order, a machine that slows down would look like an effect of an axis.
    """
    jobs = [
        Job(cell, replicate, repeat)
        for cell in grid.cells
        for replicate in range(profile.run.replicates)
        for repeat in range(profile.run.repeats)
    ]
    random.Random(profile.run.order_seed).shuffle(jobs)
    return jobs
