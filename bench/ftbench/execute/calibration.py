"""Calibration: a worker measures its device, and three real cells check what follows from that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ftbench.execute.engines.base import Engine
from ftbench.execute.listener import Listener
from ftbench.execute.outcome import require_answer
from ftbench.execute.runner import Runner
from ftbench.plan.devices import Placement
from ftbench.plan.grid import Grid
from ftbench.plan.profile import Profile
from ftbench.plan.profile_file import load_profile
from ftbench.plan.resolve import resolve
from ftbench.records.calibration import CalibrateRequest, Calibration, Workload, WorkloadRequest
from ftbench.records.messages import Progress
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory

MEASURE = "ftbench.worker.calibrate.main"
MAKE_WORKLOAD = "ftbench.worker.calibrate.workload"
PROFILE = "calibrate"
TIMEOUT_S = 1800.0


def measure_kernels(
    engine: Engine,
    device: Placement,
    on_progress: Callable[[Progress], None],
    *,
    quick: bool = False,
) -> Calibration:
    """Return a worker's calibration of its device, without cells; raises the worker's error, or WorkerError."""
    with tempfile.TemporaryDirectory(prefix="ftbench-") as scratch:
        outcome = engine.run(
            MEASURE,
            CalibrateRequest(device=device.kind, quick=quick).model_dump_json(),
            log_file=Path(scratch) / "calibrate.log",
            timeout_s=TIMEOUT_S,
            on_progress=on_progress,
        )
        return require_answer(outcome, "calibration", Calibration, None)


def workload_in(
    folder: Path,
    engine: Engine,
    device: Placement,
    on_progress: Callable[[Progress], None],
    *,
    profile: str = PROFILE,
    small: bool = False,
) -> tuple[Profile, Grid]:
    """Return a profile and its cells, after a worker has made their model and texts in a folder.

    By default those of the check of a calibration. The model is as large as the device asks for, unless `small`.
    """
    size = "cpu" if small else device.kind
    outcome = engine.run(
        MAKE_WORKLOAD,
        WorkloadRequest(folder=str(folder), device=size).model_dump_json(),
        log_file=folder / "workload.log",
        timeout_s=TIMEOUT_S,
        on_progress=on_progress,
    )
    made = require_answer(outcome, "workload", Workload, None)
    settings = {
        "workload.model": made.model,
        "workload.dataset": made.data,
        "run.device": device.kind,
    }
    found = load_profile(profile, [f"{name}={value}" for name, value in settings.items()])
    return found, resolve(found)


def run_cells(
    profile: Profile,
    grid: Grid,
    folder: Path,
    engine: Engine,
    device: Placement,
    listener: Listener,
) -> list[Record]:
    """Return the records of the cells, run one after another into a folder."""
    return Runner(profile, grid, RunDirectory.create(folder), engine, device, listener).run()
