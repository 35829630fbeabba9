"""Commands that run cells."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING
from ftbench.cli.ending import Interrupted
from ftbench.cli.options import (
    OnlyOption,
    ProfileArgument,
    SetOption,
    fail,
    open_console,
    selection_of,
    size_of,
)
from ftbench.cli.report import show_report

if TYPE_CHECKING:
    from ftbench.records.run_directory import RunDirectory

OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run directory.  [default: results/PROFILE]"),
]
OtherEnvironmentOption = Annotated[
    bool,
    typer.Option(
        "--allow-other-environment",
        help="Add to a run directory even if its packages or hardware differ.",
    ),
]
RerunNoisyOption = Annotated[
    bool,
    typer.Option(
        "--rerun-noisy",
        help="Repeat cells that were disturbed (see Warnings in the report), or whose figures are untrusted.",
    ),
]
SkipUnfitOption = Annotated[
    bool,
    typer.Option(
        "--skip-unfit",
        help="Do not run cells that are predicted not to fit in memory; record them as unfit.",
    ),
]
KeepRequestsOption = Annotated[
    bool,
    typer.Option(
        "--keep-requests",
        help="Keep each worker's request in logs/, for `python -m ftbench.worker FILE`.",
    ),
]


def run(
    profile: ProfileArgument,
    out: OutOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    allow_other_environment: OtherEnvironmentOption = False,
    rerun_noisy: RerunNoisyOption = False,
    skip_unfit: SkipUnfitOption = False,
    keep_requests: KeepRequestsOption = False,
) -> None:
    """Run the missing cells of a profile; show and write the report.

    Cells that have a finished record in the run directory are not run again.
    """
    from ftbench.base.units import counted
    from ftbench.plan.grid import axis_order
    from ftbench.plan.profile_file import load_profile
    from ftbench.verbs.results import DEFAULT_FORMATS
    from ftbench.verbs.run import plan_run

    loaded = load_profile(profile, overrides or ())
    planned = plan_run(loaded, selection_of(only), out)
    directory, grid = planned.directory, planned.grid
    if not sys.stdout.isatty():  # before the imports that take seconds
        print(f"{loaded.name}: {counted(len(grid.cells), 'cell')}, in {directory.path}", flush=True)
    planned.warm_up()  # meanwhile this process imports its own

    from ftbench.cli.progress import RunDisplay

    display = RunDisplay(open_console(), axis_order(axis.name for axis in grid.axes))
    with display, _ended_early(directory, "finished cells"):
        records = planned.execute(
            display,
            allow_other_environment=allow_other_environment,
            rerun_noisy=rerun_noisy,
            skip_unfit=skip_unfit,
            keep_requests=keep_requests,
        )
    show_report(directory, directory.path, DEFAULT_FORMATS)
    if any(record.status not in ("ok", "unfit") or record.untrusted for record in records):
        raise typer.Exit(EXIT_FINDING)


def frontier(
    profile: ProfileArgument,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit",
            metavar="SIZE",
            help="The memory limit, such as 4GiB; required on the CPU.  [default: the card's memory]",
        ),
    ] = None,
    max_batch: Annotated[
        int,
        typer.Option("--max-batch", metavar="N", min=1, help="The largest batch size to try."),
    ] = 4096,
    out: OutOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
) -> None:
    """Find the largest batch within a memory limit, by running it.

    For each length, batch sizes are tried until the largest is found that completes two optimizer steps
    within the limit. Each try is a process of its own.
    """
    from ftbench.cli.progress import FrontierDisplay
    from ftbench.execute.batch_search import Frontier
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.execute.ranks import require_one_process
    from ftbench.plan.devices import choose_device
    from ftbench.plan.profile_file import load_profile
    from ftbench.plan.resolve import resolve
    from ftbench.records.run_directory import RunDirectory
    from ftbench.report.commands.frontier import frontier_table, write_frontier
    from ftbench.report.render.terminal import show_table

    loaded = load_profile(profile, overrides or ())
    device = choose_device(loaded.run.device)
    grid = resolve(loaded)
    require_one_process(grid.cells, "frontier")
    directory = RunDirectory.create(out or Path("results") / loaded.name)
    console = open_console()
    with _ended_early(directory, "the tries so far"):
        search = Frontier(
            loaded,
            grid.only(selection_of(only)),
            directory,
            LocalEngine("spawn", device.environment),
            device,
            FrontierDisplay(console),
            limit_bytes=size_of(limit, "--limit"),
            largest=max_batch,
        )
        rows = search.run()
    show_table(console, frontier_table(rows))
    for file in write_frontier(rows, directory.path):
        console.print(f"wrote {file}", soft_wrap=True, highlight=False)
    if any(row.edge.undecided is not None for row in rows):
        raise typer.Exit(EXIT_FINDING)


@contextlib.contextmanager
def _ended_early(directory: RunDirectory, kept: str) -> Iterator[None]:
    """End the program if its user interrupts it; discard a directory whose workload is refused."""
    from ftbench.verbs.run import discarded_if_refused

    try:
        with discarded_if_refused(directory):
            yield
    except Interrupted as error:
        fail(f"interrupted; {kept} are kept, run again to go on", error.exit_code)
