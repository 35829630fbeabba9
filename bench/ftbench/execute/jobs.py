"""Jobs: the runs of the cells, in the seeded random order that they are run in."""

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
    """One run of a cell: a replicate has a seed of its own, its repeats have the same one."""

    cell: Cell
    replicate: int
    repeat: int = 0

    @property
    def identity(self) -> Identity:
        """Return what names the job's record."""
        return Identity(self.cell.cell_id, self.replicate, self.repeat)

    @property
    def seed(self) -> int:
        """Return the seed that this replicate runs with."""
        return self.cell.seed + self.replicate

    @property
    def work(self) -> float:
        """Return roughly how much there is to do, in forward passes over a token.

        A training step costs about three forward passes. Good enough to foretell the time left from cells
        that finished.
        """
        schedule = schedule_of(self.cell)
        evaluated = schedule.evaluations * schedule.eval_documents
        return (3 * schedule.documents + evaluated) * self.cell.max_length


def plan_jobs(profile: Profile, grid: Grid) -> list[Job]:
    """Return every run of every cell, in the seeded random order that they are run in.

    In the order of the grid a machine that slows down would look like an effect of an axis.
    """
    jobs = [
        Job(cell, replicate, repeat)
        for cell in grid.cells
        for replicate in range(profile.run.replicates)
        for repeat in range(profile.run.repeats)
    ]
    random.Random(profile.run.order_seed).shuffle(jobs)
    return jobs
