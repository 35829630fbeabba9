"""Runner: cells -> engine -> run directory. Finds the missing runs, runs them, and writes their records.

Every fault of a worker becomes a record with its status, and the run continues. Only faults of the parent end a
run: an interruption, a full disk, a run directory that another process has locked.
"""

from __future__ import annotations

import datetime
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ftbench.base.files import remove_link, write_atomically
from ftbench.execute.cpu_tensors import (
    TWO_STEP_PASS,
    merge_two_step_passes,
    two_step_key,
    without_tensors,
)
from ftbench.execute.engines.base import Engine, OnProgress, Outcome, Work
from ftbench.execute.in_flight import Flight, Post, fly
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
from ftbench.execute.ranks import LAUNCH, launch_of, rank_logs, require_devices
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.plan.grid import Grid
from ftbench.plan.profile import Profile
from ftbench.plan.schedule import schedule_of
from ftbench.records.environment import Environment
from ftbench.records.invariants import broken_invariants
from ftbench.records.measurement import Measurement
from ftbench.records.messages import (
    CellRequest,
    Preparation,
    Progress,
    TwoStepPass,
    TwoStepPasses,
    TwoStepRequest,
    WorkspaceRequest,
)
from ftbench.records.predicted_peaks import PredictedPeaks
from ftbench.records.prediction import Predictions, PredictRequest
from ftbench.records.record import Failure, Identity, Record, attempt_name
from ftbench.records.run_directory import RunDirectory

CELL = "ftbench.worker.cell"


# Bytes per parameter in a checkpoint: fp32 weights, and two fp32 moments of Adam.
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
        device: Placement,
        listener: Listener,
        *,
        kept: frozenset[Cell] = frozenset(),
        predictor: Engine | None = None,
        keep_requests: bool = False,
    ) -> None:
        """Make a runner; the checkpoints of the cells in `kept` are not removed.

        `predictor` is the engine of predictions, whose worker sees no card. With `keep_requests`, each
        worker's request is kept beside its log, for `python -m ftbench.worker`.
        """
        self._profile = profile
        self._grid = grid
        self._directory = directory
        self._engine = engine
        self._device = device
        self._listener = listener
        self._kept = kept
        self._predictor = predictor or engine
        self._keep_requests = keep_requests
        self._workspace = engine.workspace(directory.path.absolute())
        self._earlier: dict[Identity, Record] = {}  # the directory's record of each run
        self._two_steps: dict[str, Future[Outcome]] = {}  # two-step passes, by `two_step_key`
        self._predicted: Predictions | None = None

    def run(
        self,
        *,
        allow_other_environment: bool = False,
        rerun_noisy: bool = False,
        skip_unfit: bool = False,
    ) -> list[Record]:
        """Run the missing and the failed cells, and return the records of the whole grid.

        With `skip_unfit`, memory is predicted first, and a cell that cannot fit on the device gets a record
        with the status `unfit` instead of a run. With `rerun_noisy`, cells are run again if a warning passed a
        named threshold or a figure is untrusted; the earlier record moves to `superseded/`. A record that
        cannot be read is moved away, and its cell run again. Raises EnvironmentMismatch if the directory has
        records of another environment, unless `allow_other_environment`; WorkloadError or ProfileError if the
        workload cannot be prepared, or a cell's processes not run on this machine's devices; RunDirectoryError if
        the disk is full.
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
            require_devices((job.cell for job in missing), self._device)
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
                if not allow_other_environment:
                    require_same_environment(environment, records, self._directory)
                self._directory.write_environment(environment)
                self._directory.write_preparation(preparation)
                self._directory.write_profile(self._profile)
                if skip_unfit and missing:
                    self._predicted = self._predict(missing, environment)
                unfit = {job.identity: self._unfit(job, environment) for job in missing}
                finished |= {i: record for i, record in unfit.items() if record is not None}
                missing = [job for job in missing if unfit[job.identity] is None]
                for record in fly(self._engine, self._flights(missing, preparation)):
                    # A rerun that failed does not replace the result of an earlier run.
                    if record.status == "ok" or record.identity not in finished:
                        finished[record.identity] = record
            return [finished[job.identity] for job in jobs]

    def _predict(self, jobs: Sequence[Job], environment: Environment) -> Predictions:
        """Return the predicted memory of the cells on this machine's device."""
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
        """Return the record of a job whose cell cannot fit; None if it may fit.

        An earlier record is kept: it is either measured or has the same prediction.
        """
        prediction = self._predicted.of(job.cell.cell_id) if self._predicted else None
        reason = (
            None
            if prediction is None
            else does_not_fit(prediction, environment, job.cell.num_processes)
        )
        if reason is None:
            return None
        earlier = self._earlier.get(job.identity)
        if earlier is not None:
            self._listener.finished(job, earlier)
            return earlier
        record = self._record(
            job,
            environment,
            started_at=_now(),
            wall_s=0.0,
            status="unfit",
            failure=Failure(message=reason),
        )
        self._directory.write_record(record)
        self._listener.finished(job, record)
        return record

    def _peaks(self, job: Job) -> PredictedPeaks | None:
        prediction = self._predicted.of(job.cell.cell_id) if self._predicted else None
        return None if prediction is None else predicted_peaks(prediction, job.cell)

    def _require_free(self, jobs: Sequence[Job], parameters: int) -> None:
        """Raise RunDirectoryError if the disk has too little space for the checkpoints.

        It must hold all that are kept, and the largest ones of as many jobs as run at once.
        """
        sizes = [(checkpoint_bytes(job.cell, parameters), job.cell in self._kept) for job in jobs]
        stays = sum(size for size, kept in sizes if kept)
        passing = sorted((size for size, kept in sizes if not kept), reverse=True)
        self._directory.require_free(stays + sum(passing[: self._engine.places]))

    def _clear_remains(self, finished: Mapping[Identity, Record]) -> None:
        """Remove the checkpoints of unfinished cells, which a killed run has left."""
        names = {identity.name for identity in finished}
        for folder in (self._directory.path / "checkpoints").iterdir():
            remove_link(folder)
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _flights(
        self, jobs: Sequence[Job], preparation: Preparation
    ) -> Iterator[Callable[[Post], Flight[Record]]]:
        """Yield each job as a flight; raises RunDirectoryError if the disk has no room for its checkpoints."""
        for number, job in enumerate(jobs):
            self._require_free(jobs[number:], preparation.parameters)
            yield functools.partial(self._flight, job, preparation)

    def _flight(self, job: Job, preparation: Preparation, post: Post) -> Flight[Record]:
        """Run one job, write its record, and remove its checkpoints unless they are to be kept."""
        earlier = self._earlier.get(job.identity)
        attempt = earlier.attempt + 1 if earlier else 0
        name = attempt_name(job.identity, attempt)
        request = CellRequest(
            cell=job.cell,
            replicate=job.replicate,
            seed=job.seed,
            device=self._device.kind,
            preparation=preparation,
            workspace=str(self._workspace.root),
            output=f"checkpoints/{job.identity.name}",
            steps_file=f"steps/{name}.parquet",
            samples_file=f"samples/{name}.parquet",
            reports=f"logs/{name}",
        )
        # A run that was cut off may have left files there.
        self._workspace.clear(
            request.output, request.steps_file, request.samples_file, request.reports
        )
        self._listener.started(job)
        started_at = _now()

        def on_progress(progress: Progress) -> None:
            post(lambda: self._listener.progress(job, progress))

        try:
            outcome = yield self._submit(CELL, request, job.cell, name, on_progress)
            parsed = parse_result(outcome, "measurement", Measurement)
            measured = parsed.result
            if measured is not None:
                measured = yield from self._with_tensors(job, measured, preparation)
        finally:
            if job.cell not in self._kept:
                self._workspace.clear(request.output)
        record = self._record(
            job,
            preparation.environment,
            attempt=attempt,
            started_at=started_at,
            wall_s=outcome.wall_s,
            status=parsed.status,
            measurement=measured,
            failure=parsed.failure,
        )
        broken = broken_invariants(record, preparation.environment)
        record = record.model_copy(update={"untrusted": broken})
        if record.status == "ok" or earlier is None or earlier.status != "ok":
            self._directory.write_record(record)
        self._listener.finished(job, record)
        return record

    def _submit(
        self,
        module: str,
        request: WorkspaceRequest,
        cell: Cell,
        name: str,
        on_progress: OnProgress,
    ) -> Future[Outcome]:
        """Pass a request to the engine, and write it to a file as well if `keep_requests` is set.

        That of a cell of several processes goes to their launcher.
        """
        if cell.num_processes > 1:
            request = launch_of(module, request, cell, self._device, name)
            module = LAUNCH
        text = request.model_dump_json()
        if self._keep_requests:
            environment = dict(self._device.environment)
            data = {"module": module, "environment": environment, "request": json.loads(text)}
            file = self._directory.file("logs", name, ".request.json")
            write_atomically(file, json.dumps(data, indent=1) + "\n")
        log = self._directory.file("logs", name, ".log")
        work = Work(
            module,
            text,
            log,
            float(self._profile.run.timeout_s),
            rank_logs=rank_logs(log, cell.num_processes),
        )
        return self._engine.submit(work, on_progress)

    def _record(self, job: Job, environment: Environment, **how: Any) -> Record:
        """Return the record of a job; `how` has the fields that describe the run and its end."""
        return Record(
            cell_id=job.cell.cell_id,
            replicate=job.replicate,
            repeat=job.repeat,
            seed=job.seed,
            cell=job.cell,
            axes=tuple(axis.name for axis in self._grid.axes),
            environment_id=environment.environment_id,
            predicted=self._peaks(job),
            **how,
        )

    def _with_tensors(
        self, job: Job, measured: Measurement, preparation: Preparation
    ) -> Flight[Measurement]:
        """Return the measurement with the CPU tensors' peaks, from a two-step pass in a process of its own.

        One pass serves all cells whose two steps need the same memory (`two_step_key`).
        """
        if self._device.kind != "cpu":
            return without_tensors(measured, "the cell ran on CUDA: its tensors are on the card")
        if not self._profile.run.cpu_tensors:
            return without_tensors(measured, "turned off by run.cpu_tensors")
        key = two_step_key(job.cell)
        if key not in self._two_steps:
            request = TwoStepRequest(
                cell=job.cell,
                seed=job.seed,
                device=self._device.kind,
                preparation=preparation,
                workspace=str(self._workspace.root),
                output=f"checkpoints/{job.identity.name}-two-steps",
                tensors=True,
            )
            name = f"{job.identity.name}-two-steps"
            self._two_steps[key] = self._submit(
                TWO_STEP_PASS, request, job.cell, name, lambda _: None
            )
            try:
                yield self._two_steps[key]
            finally:
                self._workspace.clear(request.output)
        outcome = self._two_steps[key]
        ended = outcome.result() if outcome.done() else (yield outcome)
        passes = _passes_of(ended, job.cell)
        if passes is None:
            return without_tensors(measured, "the two-step pass failed: see its log")
        return merge_two_step_passes(measured, passes)


def _passes_of(outcome: Outcome, cell: Cell) -> tuple[TwoStepPass, ...] | None:
    """Return the two-step passes of a cell's processes; None if they failed."""
    if cell.num_processes > 1:
        of_ranks = parse_result(outcome, "two_step", TwoStepPasses).result
        return None if of_ranks is None else of_ranks.ranks
    two_step = parse_result(outcome, "two_step", TwoStepPass).result
    return None if two_step is None else (two_step,)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def checkpoint_bytes(cell: Cell, parameters: int) -> int:
    """Return the most disk space, in bytes, that a cell's checkpoints and final model take.

    If only some parameters are trained, the optimizer state is negligible.
    """
    settings = cell.settings
    model = _WEIGHT_BYTES * parameters
    saves = schedule_of(cell).checkpoints
    limit = settings.get("save_total_limit")
    kept = min(saves, limit + 1) if limit else saves
    weights_only = settings.get("save_only_model") or cell.method != "full"
    return model + kept * (model if weights_only else _CHECKPOINT_BYTES * parameters)
