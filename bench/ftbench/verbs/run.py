"""Run: the missing cells of a profile, into a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftbench.base.errors import ProfileError, WorkloadError
from ftbench.execute.engines.base import Engine, make_engine
from ftbench.execute.jobs import plan_jobs
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement, choose_device
from ftbench.plan.grid import Grid, axis_order, kept_cells
from ftbench.plan.profile import Profile
from ftbench.plan.resolve import resolve
from ftbench.records.run_directory import RunDirectory
from ftbench.verbs.asking import predictor
from ftbench.verbs.profiles import ProfileLike, profile_of
from ftbench.verbs.results import Results

if TYPE_CHECKING:
    from ftbench.execute.listener import Listener
    from ftbench.records.record import Record


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run before it begins: what, where, on which device."""

    profile: Profile
    grid: Grid
    kept: frozenset[Cell]
    device: Placement
    directory: RunDirectory
    engine: Engine

    def warm_up(self) -> None:
        """Start the engine if it will be needed: its server takes seconds to import torch."""
        if self.directory.record_count() < len(plan_jobs(self.profile, self.grid)):
            self.engine.warm_up()

    def execute(
        self,
        listener: Listener,
        *,
        allow_other_environment: bool = False,
        rerun_noisy: bool = False,
        skip_unfit: bool = False,
        keep_requests: bool = False,
    ) -> list[Record]:
        """Run the missing cells; return the records of the whole grid. Raises as `Runner.run` does."""
        from ftbench.execute.runner import Runner

        runner = Runner(
            self.profile,
            self.grid,
            self.directory,
            self.engine,
            self.device,
            listener,
            kept=self.kept,
            predictor=predictor(),
            keep_requests=keep_requests,
        )
        return runner.run(
            allow_other_environment=allow_other_environment,
            rerun_noisy=rerun_noisy,
            skip_unfit=skip_unfit,
        )


def plan_run(
    profile: Profile, selection: Mapping[str, Any], out: Path | None, *, option: str = "--only"
) -> PlannedRun:
    """Return the run of a profile's selected cells, in `results/NAME` if `out` names no other directory.

    Raises ProfileError, WorkloadError and RunDirectoryError.
    """
    whole = resolve(profile)
    grid, kept = whole.only(selection, option=option), kept_cells(profile, whole)
    device = choose_device(profile.run.device, processes=grid.most_processes)
    directory = RunDirectory.create(out or Path("results") / profile.name)
    return PlannedRun(profile, grid, kept, device, directory, make_engine(profile.run, device))


@contextlib.contextmanager
def discarded_if_refused(directory: RunDirectory) -> Iterator[None]:
    """Remove a directory that was made for a workload that is refused: nothing was run."""
    try:
        yield
    except (ProfileError, WorkloadError):
        directory.discard()
        raise


def run(
    profile: ProfileLike,
    *,
    out: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    allow_other_environment: bool = False,
    rerun_noisy: bool = False,
    skip_unfit: bool = False,
) -> Results:
    """Run the missing cells of a profile, each in a process of its own, and return the results so far.

    Cells that have a finished record in the run directory are not run again. `profile_of` says in which forms a
    profile is given; `only` selects cells by their values on the axes; the options are those of `ftbench run`.
    A cell that fails is a record that says why, as `Results.to_pandas` shows. Progress is logged under the name
    `ftbench`, at the level INFO.
    Raises ProfileError, WorkloadError, RunDirectoryError and EnvironmentMismatch.
    """
    from ftbench.verbs.run_log import RunLog

    planned = plan_run(
        profile_of(profile, settings), only or {}, None if out is None else Path(out), option="only"
    )
    planned.warm_up()
    with discarded_if_refused(planned.directory):
        planned.execute(
            RunLog(axis_order(axis.name for axis in planned.grid.axes)),
            allow_other_environment=allow_other_environment,
            rerun_noisy=rerun_noisy,
            skip_unfit=skip_unfit,
        )
    return Results(planned.directory)
