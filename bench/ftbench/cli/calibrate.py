"""`ftbench calibrate`: measure this machine's device, so that time on it is predicted from its own kernels."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ftbench.base.errors import EXIT_FINDING
from ftbench.cli.options import forecast_of, open_console

if TYPE_CHECKING:
    from ftbench.plan.devices import Placement
    from ftbench.records.calibration import Calibration, CellCheck

OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The folder of the file.  [default: calibration]"),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, or a card's UUID."),
]
CellsOption = Annotated[
    bool,
    typer.Option("--cells/--no-cells", help="Run three cells afterwards, and compare their time."),
]


QuickOption = Annotated[
    bool, typer.Option("--quick", help="Measure a third of the kernels, in about a minute.")
]


def calibrate(
    out: OutOption = None,
    device: DeviceOption = "auto",
    cells: CellsOption = True,
    quick: QuickOption = False,
) -> None:
    """Measure the device of this machine, kernel by kernel, in some five minutes.

    Writes calibration/DEVICE.json, which `estimate` and `predict` use from then on if they run in the same folder.
    Stop other work first: it would be measured, too.
    """
    from ftbench.cli.progress import phases_on
    from ftbench.estimation.calibrated_run import with_cells
    from ftbench.execute.calibration import measure_kernels
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.plan.devices import choose_device
    from ftbench.records.calibration_files import FOLDER, make_folder, write_calibration
    from ftbench.report.commands.calibration import cells_table, kernels_table
    from ftbench.report.render.terminal import show_table

    placement = choose_device(device)
    folder = out or FOLDER
    make_folder(folder)  # before minutes of measuring
    engine = LocalEngine("spawn", placement.environment)
    with phases_on(sys.stderr) as show:
        found = measure_kernels(engine, placement, show, quick=quick)
    console = open_console()
    show_table(console, kernels_table(found))
    file = write_calibration(
        found, folder
    )  # what was measured is kept if the cells are interrupted
    missing = 0
    if cells:
        checks, missing = _checked(found, placement)
        found = with_cells(found, checks)
        show_table(console, cells_table(found))
        file = write_calibration(found, folder)
    console.print(f"wrote {file}", soft_wrap=True)
    if missing:
        console.print(
            f"{missing} of the cells did not finish, or could not be predicted", style="red"
        )
        raise typer.Exit(EXIT_FINDING)


def _checked(found: Calibration, placement: Placement) -> tuple[list[CellCheck], int]:
    """Return the cells that check a calibration, and how many did not finish or could not be predicted."""
    from ftbench.cli.progress import RunDisplay, phases_on
    from ftbench.estimation.calibrated_run import cards_of, checks_of
    from ftbench.execute.calibration import run_cells, workload_in
    from ftbench.execute.engines.local import LocalEngine
    from ftbench.plan.grid import axis_order

    engine = LocalEngine("spawn", placement.environment)
    console = open_console()
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        folder = Path(scratch)
        with phases_on(sys.stderr) as show:
            profile, grid = workload_in(folder, engine, placement, show)
        predicted = forecast_of(grid, cards_of(found), on_cpu=placement.kind == "cpu", work=True)
        with RunDisplay(console, axis_order(axis.name for axis in grid.axes)) as display:
            records = run_cells(profile, grid, folder / "run", engine, placement, display)
    checks = checks_of(found, records, predicted)
    return checks, len(records) - len(checks)
