"""Runner: cells -> engine -> store. Decides what is missing, in which order, and what came of each."""

from __future__ import annotations

import dataclasses
import datetime
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from bench.devices import DeviceChoice
from bench.engines.local import Engine, Outcome
from bench.errors import EnvironmentMismatch, WorkerError
from bench.grid import Cell, Grid
from bench.messages import CellRequest, Preparation, PrepareRequest, Progress
from bench.profile import Profile
from bench.record import Environment, Failure, Measurement, Record
from bench.store import RunDirectory, record_name

PREPARE = "bench.worker.prepare"
CELL = "bench.worker.cell"

# Bytes a parameter in a checkpoint: fp32 weights, and two fp32 moments of Adam.
_CHECKPOINT_BYTES = 12
_WEIGHT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """One replicate of a cell."""

    cell: Cell
    replicate: int

    @property
    def identity(self) -> tuple[str, int]:
        """Return (cell_id, replicate)."""
        return self.cell.cell_id, self.replicate

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


def plan_jobs(profile: Profile, grid: Grid) -> list[Job]:
    """Return every replicate of every cell, in the seeded random order that they are run in.

    In the order of the grid a machine that slows down would look like an effect of an axis.
    """
    jobs = [
        Job(cell, replicate) for cell in grid.cells for replicate in range(profile.run.replicates)
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
    ) -> None:
        """Make a runner; the checkpoints of the cells in `kept` stay."""
        self._profile = profile
        self._grid = grid
        self._directory = directory
        self._engine = engine
        self._device = device
        self._listener = listener
        self._kept = kept

    def run(self, *, mixed: bool = False) -> list[Record]:
        """Run what is missing and return the records of the whole grid; a failed cell is tried again.

        Raises EnvironmentMismatch where the directory's records come from another environment,
        unless `mixed`; WorkloadError or ProfileError where prepare refuses the workload.
        """
        with self._directory.lock():
            finished = {r.identity: r for r in self._directory.records() if r.status == "ok"}
            jobs = plan_jobs(self._profile, self._grid)
            done = [job for job in jobs if job.identity in finished]
            missing = [job for job in jobs if job.identity not in finished]
            self._listener.planned(missing, done)
            if missing:
                self._clear_remains(finished)
                preparation = self._prepare([job.cell for job in missing])
                environment = preparation.environment
                if not mixed:
                    _require_same(environment, self._directory)
                self._directory.write_environment(environment)
                self._directory.write_preparation(preparation)
                self._directory.write_profile(self._profile)
                for number, job in enumerate(missing):
                    self._require_free(missing[number:], preparation.parameters)
                    finished[job.identity] = self._run(job, preparation)
            return [finished[job.identity] for job in jobs]

    def _prepare(self, cells: Sequence[Cell]) -> Preparation:
        """Probe and tokenise in a worker; raises what it refuses."""
        scratch = self._directory.path / "checkpoints" / "prepare"
        request = PrepareRequest(
            cells=tuple(dict.fromkeys(cells)), device=self._device.kind, scratch=str(scratch)
        )
        outcome = self._engine.run(
            PREPARE,
            request.model_dump_json(),
            log_file=self._directory.file("logs", "prepare", ".log"),
            timeout_s=float(self._profile.run.timeout_s),
            on_progress=self._listener.preparing,
        )
        if outcome.refusal is not None:
            raise outcome.refusal
        if outcome.answer is None:
            raise WorkerError(
                f"the prepare stage {_how_it_ended(outcome)}",
                where=str(self._directory.file("logs", "prepare", ".log")),
                got=outcome.log_tail or None,
            )
        return Preparation.model_validate(outcome.answer)

    def _require_free(self, jobs: Sequence[Job], parameters: int) -> None:
        """Raise RunDirectoryError where the disk can't hold what stays, and the largest of the rest."""
        sizes = [(checkpoint_bytes(job.cell, parameters), job.cell in self._kept) for job in jobs]
        stays = sum(size for size, kept in sizes if kept)
        self._directory.require_free(
            stays + max((size for size, kept in sizes if not kept), default=0)
        )

    def _clear_remains(self, finished: Mapping[tuple[str, int], Record]) -> None:
        """Remove the checkpoints of cells that never finished: a run was killed over them."""
        names = {record_name(*identity) for identity in finished}
        for folder in (self._directory.path / "checkpoints").iterdir():
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, job: Job, preparation: Preparation) -> Record:
        """Run one job, write its record, and clear away its checkpoints unless they are to stay."""
        name = record_name(*job.identity)
        output = self._directory.path / "checkpoints" / name
        shutil.rmtree(output, ignore_errors=True)  # of a try that was cut off
        request = CellRequest(
            cell=job.cell,
            replicate=job.replicate,
            seed=job.seed,
            device=self._device.kind,
            preparation=preparation,
            output=str(output),
            steps_file=str(self._directory.file("steps", name, ".parquet")),
        )
        self._listener.started(job)
        started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            outcome = self._engine.run(
                CELL,
                request.model_dump_json(),
                log_file=self._directory.file("logs", name, ".log"),
                timeout_s=float(self._profile.run.timeout_s),
                on_progress=lambda progress: self._listener.progress(job, progress),
            )
        finally:
            if job.cell not in self._kept:
                shutil.rmtree(output, ignore_errors=True)
        record = Record(
            cell_id=job.cell.cell_id,
            replicate=job.replicate,
            seed=job.seed,
            cell=job.cell,
            axes=tuple(axis.name for axis in self._grid.axes),
            environment_id=preparation.environment.environment_id,
            started_at=started_at,
            wall_s=outcome.wall_s,
            **_result(outcome),
        )
        self._directory.write_record(record)
        self._listener.finished(job, record)
        return record


def _result(outcome: Outcome) -> dict[str, Any]:
    """Return status, measurement and failure of a worker that ended; its answer is checked strictly."""
    if outcome.answer is not None:
        try:
            if outcome.answer.get("status") == "ok":
                return {
                    "status": "ok",
                    "measurement": Measurement.model_validate(outcome.answer["measurement"]),
                }
            failure = Failure.model_validate(outcome.answer["failure"])
            failure = failure.model_copy(update={"log_tail": outcome.log_tail})
            return {"status": outcome.answer["status"], "failure": failure}
        except (ValidationError, KeyError) as error:
            failure = Failure(
                message=f"an answer that is no measurement: {error}", log_tail=outcome.log_tail
            )
            return {"status": "invalid", "failure": failure}
    if outcome.refusal is not None:
        failure = Failure(message=str(outcome.refusal), log_tail=outcome.log_tail)
        return {"status": "invalid", "failure": failure}
    failure = Failure(
        message=f"the worker {_how_it_ended(outcome)}",
        phase=outcome.last.phase if outcome.last else None,
        step=outcome.last.step if outcome.last else None,
        log_tail=outcome.log_tail,
    )
    return {"status": "timeout" if outcome.timed_out else "crashed", "failure": failure}


def _how_it_ended(outcome: Outcome) -> str:
    if outcome.timed_out:
        return f"was stopped at its time limit, after {outcome.wall_s:.0f} s"
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return f"was killed by signal {-outcome.exit_code}"
    return f"ended without an answer, exit code {outcome.exit_code}"


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
    """Return the disk space that a cell's checkpoints and final model take at most."""
    settings = cell.settings
    model = _WEIGHT_BYTES * parameters
    saves = _saves(cell)
    limit = settings.get("save_total_limit")
    kept = min(saves, limit + 1) if limit else saves
    each = model if settings.get("save_only_model") else _CHECKPOINT_BYTES * parameters
    return model + kept * each


def _saves(cell: Cell) -> int:
    """Return how many checkpoints a cell writes at most."""
    settings = cell.settings
    strategy = settings["save_strategy"]
    if strategy == "no":
        return 0
    accumulated = int(settings.get("gradient_accumulation_steps", 1))
    steps_an_epoch = math.ceil(cell.train_size / (cell.per_device_train_batch_size * accumulated))
    steps = math.ceil(float(settings["num_train_epochs"]) * steps_an_epoch)
    if settings.get("max_steps", -1) > 0:
        steps = int(settings["max_steps"])
    if strategy == "epoch":
        return math.ceil(steps / steps_an_epoch)
    every = float(settings.get("save_steps", 500))  # below 1 it is a share of all steps
    if strategy == "best":
        every = 1
    return math.ceil(steps / (every if every >= 1 else max(every * steps, 1.0)))
