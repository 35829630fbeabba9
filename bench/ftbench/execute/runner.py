"""Runner: cells -> engine -> store. Decides what is missing, in which order, and what came of each.

Every fault of a worker becomes a record with its status, and the run goes on. What ends a run is the
parent's own: an interruption, a full disk, a run directory that somebody else holds.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftbench.base.files import remove_link
from ftbench.execute.cpu_tensors import (
    TWO_STEP_PASS,
    merge_two_step_pass,
    two_step_key,
    without_tensors,
)
from ftbench.execute.engines.local import Engine
from ftbench.execute.jobs import Job, plan_jobs
from ftbench.execute.listener import Listener
from ftbench.execute.outcome import parse_result
from ftbench.execute.prediction_worker import (
    does_not_fit,
    forecast,
    gpu_of,
    predicted_peaks,
    processes,
)
from ftbench.execute.prepare import prepare, require_same_environment
from ftbench.plan.cell import Cell
from ftbench.plan.devices import DeviceChoice
from ftbench.plan.grid import Grid
from ftbench.plan.profile import Profile
from ftbench.plan.schedule import schedule_of
from ftbench.records.invariants import broken_invariants
from ftbench.records.messages import (
    CellRequest,
    Preparation,
    TwoStepPass,
    TwoStepRequest,
)
from ftbench.records.prediction import Predictions, PredictRequest
from ftbench.records.record import (
    Environment,
    Failure,
    Identity,
    Measurement,
    PredictedPeaks,
    Record,
    attempt_name,
)
from ftbench.records.run_directory import RunDirectory

CELL = "ftbench.worker.cell"


# Bytes a parameter in a checkpoint: fp32 weights, and two fp32 moments of Adam.
_CHECKPOINT_BYTES = 12
_WEIGHT_BYTES = 4


class Runner:
    """Runs the missing cells of a grid into a run directory."""

    def __init__(
        self,
        profile: Profile,
        grid: Grid,
        directory: RunDirectory,
        engine: Engine,
        device: DeviceChoice,
        listener: Listener,
        *,
        kept: frozenset[Cell] = frozenset(),
        predictor: Engine | None = None,
    ) -> None:
        """Make a runner; the checkpoints of the cells in `kept` stay.

        `predictor` runs predictions: an engine that shows its worker no card.
        """
        self._profile = profile
        self._grid = grid
        self._directory = directory
        self._engine = engine
        self._device = device
        self._listener = listener
        self._kept = kept
        self._predictor = predictor or engine
        self._earlier: dict[Identity, Record] = {}  # what the directory has of each run
        self._two_steps: dict[str, TwoStepPass | None] = {}  # two-step passes that were made
        self._predicted: Predictions | None = None

    def run(
        self, *, mixed: bool = False, rerun_noisy: bool = False, skip_unfit: bool = False
    ) -> list[Record]:
        """Run what is missing and return the records of the whole grid; a failed cell is tried again.

        With `skip_unfit` memory is predicted first, and a cell that does not fit the device whatever
        is unknown gets a record that says so, and is not run.
        With `rerun_noisy` so is one whose load or spread passed a named threshold, or with a figure
        that is untrusted; its earlier record is kept aside. A record that cannot be read is moved
        away and its cell run again. Raises EnvironmentMismatch where the directory's records come
        from another environment, unless `mixed`; WorkloadError or ProfileError where prepare
        refuses the workload; RunDirectoryError where the disk is full.
        """
        with self._directory.lock():
            records, broken = self._directory.survey()
            for damaged in broken:
                self._listener.set_aside(damaged, self._directory.set_aside(damaged))
            self._earlier = {record.identity: record for record in records}
            finished = {i: r for i, r in self._earlier.items() if r.status == "ok"}
            jobs = plan_jobs(self._profile, self._grid)
            again = {i for i, record in finished.items() if rerun_noisy and record.noisy}
            done = [job for job in jobs if job.identity in finished.keys() - again]
            missing = [job for job in jobs if job.identity not in finished.keys() - again]
            self._listener.planned(missing, done)
            if missing or not self._directory.describes_itself():
                self._clear_remains(finished)
                preparation = prepare(
                    self._profile,
                    [job.cell for job in missing or jobs],
                    self._directory,
                    self._engine,
                    self._device,
                    self._listener.preparing,
                )
                environment = preparation.environment
                if not mixed:
                    require_same_environment(environment, self._directory)
                self._directory.write_environment(environment)
                self._directory.write_preparation(preparation)
                self._directory.write_profile(self._profile)
                if skip_unfit and missing:
                    self._predicted = self._predict(missing, environment)
                unfit = {job.identity: self._unfit(job, environment) for job in missing}
                finished |= {i: record for i, record in unfit.items() if record is not None}
                missing = [job for job in missing if unfit[job.identity] is None]
                for number, job in enumerate(missing):
                    self._require_free(missing[number:], preparation.parameters)
                    record = self._run(job, preparation)
                    # A rerun that failed takes nothing away from the run before it.
                    if record.status == "ok" or job.identity not in finished:
                        finished[job.identity] = record
            return [finished[job.identity] for job in jobs]

    def _predict(self, jobs: Sequence[Job], environment: Environment) -> Predictions:
        """Return what the cells need of this machine's device."""
        on_cpu = self._device.kind == "cpu"
        request = PredictRequest(
            cells=tuple(dict.fromkeys(job.cell for job in jobs)),
            gpus=() if on_cpu else (gpu_of(environment.device),),
            on_cpu=on_cpu,
            processes=processes(),
        )
        log = self._directory.file("logs", "predict", ".log")
        listener = self._listener.preparing
        return forecast(request, self._predictor, log_file=log, on_progress=listener)

    def _unfit(self, job: Job, environment: Environment) -> Record | None:
        """Return the record of a job whose cell will not fit; None where it may.

        One that is there already stays: a measured end says more, and the same prediction the same.
        """
        found = self._predicted.of(job.cell.cell_id) if self._predicted else None
        why = None if found is None else does_not_fit(found, environment)
        if why is None:
            return None
        earlier = self._earlier.get(job.identity)
        if earlier is not None:
            self._listener.finished(job, earlier)
            return earlier
        record = Record(
            cell_id=job.cell.cell_id,
            replicate=job.replicate,
            repeat=job.repeat,
            seed=job.seed,
            cell=job.cell,
            axes=tuple(axis.name for axis in self._grid.axes),
            environment_id=environment.environment_id,
            started_at=_now(),
            wall_s=0.0,
            status="unfit",
            failure=Failure(message=why),
            predicted=self._peaks(job),
        )
        self._directory.write_record(record)
        self._listener.finished(job, record)
        return record

    def _peaks(self, job: Job) -> PredictedPeaks | None:
        found = self._predicted.of(job.cell.cell_id) if self._predicted else None
        return None if found is None else predicted_peaks(found)

    def _require_free(self, jobs: Sequence[Job], parameters: int) -> None:
        """Raise RunDirectoryError where the disk can't hold what stays, and the largest of the rest."""
        sizes = [(checkpoint_bytes(job.cell, parameters), job.cell in self._kept) for job in jobs]
        stays = sum(size for size, kept in sizes if kept)
        self._directory.require_free(
            stays + max((size for size, kept in sizes if not kept), default=0)
        )

    def _clear_remains(self, finished: Mapping[Identity, Record]) -> None:
        """Remove the checkpoints of cells that never finished: a run was killed over them."""
        names = {identity.name for identity in finished}
        for folder in (self._directory.path / "checkpoints").iterdir():
            remove_link(folder)
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, job: Job, preparation: Preparation) -> Record:
        """Run one job, write its record, and clear away its checkpoints unless they are to stay."""
        earlier = self._earlier.get(job.identity)
        attempt = earlier.attempt + 1 if earlier else 0
        name = attempt_name(job.identity, attempt)
        output = self._directory.path / "checkpoints" / job.identity.name
        shutil.rmtree(output, ignore_errors=True)  # of a try that was cut off
        request = CellRequest(
            cell=job.cell,
            replicate=job.replicate,
            seed=job.seed,
            device=self._device.kind,
            preparation=preparation,
            output=str(output),
            steps_file=str(self._directory.file("steps", name, ".parquet")),
            samples_file=str(self._directory.file("samples", name, ".parquet")),
            reports=str(self._directory.path / "logs" / name),
        )
        for place in (output, request.steps_file, request.samples_file, request.reports):
            remove_link(Path(place))
        shutil.rmtree(request.reports, ignore_errors=True)
        self._listener.started(job)
        started_at = _now()
        try:
            outcome = self._engine.run(
                CELL,
                request.model_dump_json(),
                log_file=self._directory.file("logs", name, ".log"),
                timeout_s=float(self._profile.run.timeout_s),
                on_progress=lambda progress: self._listener.progress(job, progress),
            )
            parsed = parse_result(outcome, "measurement", Measurement)
            measured = self._with_tensors(job, parsed.result, request) if parsed.result else None
        finally:
            if job.cell not in self._kept:
                shutil.rmtree(output, ignore_errors=True)
        record = Record(
            cell_id=job.cell.cell_id,
            replicate=job.replicate,
            repeat=job.repeat,
            attempt=attempt,
            seed=job.seed,
            cell=job.cell,
            axes=tuple(axis.name for axis in self._grid.axes),
            environment_id=preparation.environment.environment_id,
            started_at=started_at,
            wall_s=outcome.wall_s,
            status=parsed.status,
            measurement=measured,
            failure=parsed.failure,
            predicted=self._peaks(job),
        )
        broken = broken_invariants(record, preparation.environment)
        record = record.model_copy(update={"untrusted": broken})
        if record.status == "ok" or earlier is None or earlier.status != "ok":
            self._directory.write_record(record)
        self._listener.finished(job, record)
        return record

    def _with_tensors(self, job: Job, measured: Measurement, request: CellRequest) -> Measurement:
        """Return the measurement with the CPU tensors' peaks, from a two-step pass in its own process.

        Made once for all cells that differ only in what two steps cannot tell: subset size and seed.
        """
        if self._device.kind != "cpu":
            return without_tensors(measured, "the cell ran on CUDA: its tensors are on the card")
        if not self._profile.run.cpu_tensors:
            return without_tensors(measured, "not asked for (run.cpu_tensors)")
        key = two_step_key(job.cell)
        if key not in self._two_steps:
            outcome = self._engine.run(
                TWO_STEP_PASS,
                TwoStepRequest(
                    cell=job.cell,
                    seed=job.seed,
                    device=self._device.kind,
                    preparation=request.preparation,
                    output=f"{request.output}-trial",
                    tensors=True,
                ).model_dump_json(),
                log_file=self._directory.file("logs", f"{job.identity.name}-trial", ".log"),
                timeout_s=float(self._profile.run.timeout_s),
                on_progress=lambda _: None,
            )
            shutil.rmtree(f"{request.output}-trial", ignore_errors=True)
            self._two_steps[key] = parse_result(outcome, "two_step", TwoStepPass).result
        two_step = self._two_steps[key]
        if two_step is None:
            return without_tensors(measured, "the two-step pass failed: see its log")
        return merge_two_step_pass(measured, two_step)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def checkpoint_bytes(cell: Cell, parameters: int) -> int:
    """Return the disk space that a cell's checkpoints and final model take at most.

    Where not all parameters are trained, those that are have next to no optimizer state.
    """
    settings = cell.settings
    model = _WEIGHT_BYTES * parameters
    saves = schedule_of(cell).checkpoints
    limit = settings.get("save_total_limit")
    kept = min(saves, limit + 1) if limit else saves
    weights_only = settings.get("save_only_model") or cell.method != "full"
    return model + kept * (model if weights_only else _CHECKPOINT_BYTES * parameters)
