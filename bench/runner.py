"""Runner: cells -> engine -> store. Decides what is missing, in which order, and what came of each.

Every fault of a worker becomes a record with its status, and the run goes on. What ends a run is the
parent's own: an interruption, a full disk, a run directory that somebody else holds.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.devices import DeviceChoice
from bench.engines.local import Engine
from bench.errors import EnvironmentMismatch
from bench.forecast import does_not_fit, forecast, gpu_of, predicted_peaks, processes
from bench.grid import Cell, Grid
from bench.job import job_of
from bench.messages import CellRequest, Preparation, PrepareRequest, Progress, Trial, TrialRequest
from bench.outcome import answered, ended
from bench.prediction import Predictions, PredictRequest
from bench.profile import Profile
from bench.record import (
    Environment,
    Failure,
    Identity,
    Measurement,
    Memory,
    PredictedPeaks,
    Record,
    attempt_name,
)
from bench.store import Damaged, RunDirectory, remove_link
from bench.trust import broken_invariants

PREPARE = "bench.worker.prepare"
CELL = "bench.worker.cell"
TRIAL = "bench.worker.trial"

CPU_TENSORS = "peak_cpu_tensors_bytes"
TENSOR_SOURCE = "torch's CPU allocator through its profiler, in a two-step pass of its own"

# Bytes a parameter in a checkpoint: fp32 weights, and two fp32 moments of Adam.
_CHECKPOINT_BYTES = 12
_WEIGHT_BYTES = 4


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

        A training step costs about three forward passes; evaluation runs once an epoch and once
        at the end. Good enough to foretell the time left from cells that finished.
        """
        epochs = float(self.cell.settings["num_train_epochs"])
        documents = 3 * epochs * self.cell.train_size + (epochs + 1) * self.cell.data.eval_size
        return documents * self.cell.max_length


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
        self._trials: dict[str, Trial | None] = {}  # two-step passes that were made
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
                    _require_same(environment, self._directory)
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
            came = ended(outcome, "measurement", Measurement)
            measured = self._with_tensors(job, came.result, request) if came.result else None
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
            status=came.status,
            measurement=measured,
            failure=came.failure,
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
            return _without_tensors(measured, "the cell ran on CUDA: its tensors are on the card")
        if not self._profile.run.cpu_tensors:
            return _without_tensors(measured, "not asked for (run.cpu_tensors)")
        key = _shape_of(job.cell)
        if key not in self._trials:
            outcome = self._engine.run(
                TRIAL,
                TrialRequest(
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
            self._trials[key] = ended(outcome, "trial", Trial).result
        trial = self._trials[key]
        if trial is None:
            return _without_tensors(measured, "the two-step pass failed: see its log")
        return _merged(measured, trial)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def prepare(
    profile: Profile,
    cells: Sequence[Cell],
    directory: RunDirectory,
    engine: Engine,
    device: DeviceChoice,
    on_progress: Callable[[Progress], None],
) -> Preparation:
    """Probe and tokenise what cells need, in a worker; raises what it refuses."""
    request = PrepareRequest(
        cells=tuple(dict.fromkeys(cells)),
        device=device.kind,
        scratch=str(directory.path / "checkpoints" / "prepare"),
    )
    log = directory.file("logs", "prepare", ".log")
    outcome = engine.run(
        PREPARE,
        request.model_dump_json(),
        log_file=log,
        timeout_s=float(profile.run.timeout_s),
        on_progress=on_progress,
    )
    return answered(outcome, "prepare stage", Preparation, log)


def _shape_of(cell: Cell) -> str:
    """Return what decides the memory of two steps: everything but the seed, and more documents
    than a step takes.
    """
    facets = {k: v for k, v in cell.facets.items() if k not in ("train_size", "seed")}
    facets["documents"] = min(cell.train_size, cell.documents_a_step)
    return json.dumps(facets, sort_keys=True, default=str)


def _without_tensors(measured: Measurement, reason: str) -> Measurement:
    absent = measured.absent | {f"memory.{CPU_TENSORS}": reason}
    return measured.model_copy(update={"absent": absent})


def _merged(measured: Measurement, trial: Trial) -> Measurement:
    """Return the measurement with the peaks of the CPU tensors in the ledgers that the trial knows."""

    def with_peak(memory: Memory, of: Memory | None) -> Memory:
        peak = of.peak_cpu_tensors_bytes if of else None
        return memory.model_copy(update={CPU_TENSORS: peak})

    phases = {
        name: phase.model_copy(update={"memory": with_peak(phase.memory, trial.phases.get(name))})
        for name, phase in measured.phases.items()
    }
    reasons = {
        f"phases.{name}.memory.{CPU_TENSORS}": reason
        for name, reason in trial.absent.items()
        if name in phases
    }
    return measured.model_copy(
        update={
            "phases": phases,
            "memory": with_peak(measured.memory, trial.memory),
            "absent": measured.absent | reasons,
            "sources": measured.sources | {CPU_TENSORS: TENSOR_SOURCE},
        }
    )


def _require_same(environment: Environment, directory: RunDirectory) -> None:
    """Raise EnvironmentMismatch where records in the directory come from another environment."""
    there = directory.environments()
    used = {record.environment_id for record in directory.records() if record.status == "ok"}
    others = sorted(used - {environment.environment_id})
    if not others:
        return
    changes = _differences(there[others[0]], environment) if others[0] in there else ["unknown"]
    raise EnvironmentMismatch(
        "its records were measured under another environment",
        where=str(directory.path),
        got="; ".join(changes),
        expected="the environment that the other cells ran under",
        hint="--out for a new directory, or --mixed to put both into one",
    )


def _differences(old: Environment, new: Environment) -> list[str]:
    """Return what changed between two environments, a text each."""

    def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        items: dict[str, Any] = {}
        for key, value in data.items():
            items |= (
                flat(value, f"{prefix}{key}.")
                if isinstance(value, dict)
                else {f"{prefix}{key}": value}
            )
        return items

    before, after = (flat(e.model_dump(mode="json", exclude={"git_commit"})) for e in (old, new))
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key} {before.get(key)} -> {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def checkpoint_bytes(cell: Cell, parameters: int) -> int:
    """Return the disk space that a cell's checkpoints and final model take at most.

    Where not all parameters are trained, those that are have next to no optimizer state.
    """
    settings = cell.settings
    model = _WEIGHT_BYTES * parameters
    saves = job_of(cell).checkpoints
    limit = settings.get("save_total_limit")
    kept = min(saves, limit + 1) if limit else saves
    weights_only = settings.get("save_only_model") or cell.method != "full"
    return model + kept * (model if weights_only else _CHECKPOINT_BYTES * parameters)
