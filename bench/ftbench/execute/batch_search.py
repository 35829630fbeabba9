"""Frontier: the largest batch of each length at which two optimizer steps complete, measured.

Like the runner, cells -> engine -> run directory, but the next batch depends on the result of the last. Each
probe is a process of its own; probes are kept, so that an interrupted search continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

from ftbench.base.errors import ProfileError
from ftbench.base.files import remove_link
from ftbench.execute.cpu_tensors import TWO_STEP_PASS
from ftbench.execute.engines.base import Engine, Outcome
from ftbench.execute.next_batch import Edge, edge, next_batch
from ftbench.execute.outcome import WorkerResult, parse_result
from ftbench.execute.prepare import prepare
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.plan.grid import Grid
from ftbench.plan.profile import Profile
from ftbench.plan.settings import NOT_SEARCHED
from ftbench.records.batch_probe import BatchProbe
from ftbench.records.messages import Preparation, Progress, TwoStepPass, TwoStepRequest
from ftbench.records.run_directory import RunDirectory

ENFORCED = "enforced"


@dataclasses.dataclass(frozen=True)
class Row:
    """One shape, a length and the other axes without the batch, and its edge."""

    cell: Cell
    edge: Edge


class SearchListener(Protocol):
    """Receives the progress of a search; the command line shows it."""

    def preparing(self, progress: Progress) -> None:
        """Receive the progress of the prepare stage."""

    def tried(self, probe: BatchProbe) -> None:
        """Receive a probe when it has ended."""


def shapes(grid: Grid) -> list[Cell]:
    """Return one cell per shape (length and the other axes without the batch), the shortest first."""
    first: dict[str, Cell] = {}
    for cell in grid.cells:
        facets = {name: value for name, value in cell.facets.items() if name not in NOT_SEARCHED}
        first.setdefault(json.dumps(facets, sort_keys=True, default=str), cell)
    return sorted(first.values(), key=lambda cell: cell.max_length)


def with_batch(cell: Cell, batch: int) -> Cell:
    """Return the cell at another batch size, with the training examples of two steps."""
    of_batch = cell.with_shape(batch, cell.max_length)
    return of_batch.model_copy(update={"train_size": 2 * of_batch.examples_per_step})


class Frontier:
    """Searches for the largest batch of each shape of a grid."""

    def __init__(
        self,
        profile: Profile,
        grid: Grid,
        directory: RunDirectory,
        engine: Engine,
        device: Placement,
        listener: SearchListener,
        *,
        limit_bytes: int | None,
        largest: int,
    ) -> None:
        """Make a search; raises ProfileError if the device is the CPU and no limit is given."""
        if limit_bytes is None and device.kind == "cpu":
            raise ProfileError(
                "a memory limit is required on the CPU",
                where="--limit",
                expected="the memory that a worker may use, such as 4GiB",
            )
        self._profile = profile
        self._grid = grid
        self._directory = directory
        self._engine = engine
        self._device = device
        self._listener = listener
        self._limit = limit_bytes
        self._largest = largest

    def run(self) -> list[Row]:
        """Make the missing probes and return one row per shape; raises the errors of `prepare`."""
        with self._directory.lock():
            preparation = prepare(
                self._profile,
                self._grid.cells,
                self._directory,
                self._engine,
                self._device,
                self._listener.preparing,
            )
            self._directory.write_environment(preparation.environment)
            limit = self._limit or preparation.environment.device.total_memory_bytes
            assert limit is not None
            return [self._search(cell, limit, preparation) for cell in shapes(self._grid)]

    def _search(self, cell: Cell, limit: int, preparation: Preparation) -> Row:
        probes = self._earlier_probes(cell, limit, preparation)
        while (batch := next_batch(probes, limit, self._largest)) is not None:
            probe = self._probe(with_batch(cell, batch), batch, limit, preparation)
            self._directory.write_try(probe)
            self._listener.tried(probe)
            probes.append(probe)
        return Row(cell, edge(probes))

    def _earlier_probes(self, cell: Cell, limit: int, preparation: Preparation) -> list[BatchProbe]:
        """Return the decisive probes of a shape from earlier searches with the same limit and environment."""
        environment = preparation.environment.environment_id
        return [
            probe
            for probe in self._directory.tries()
            if probe.cell == with_batch(cell, probe.batch)
            and (probe.limit_bytes, probe.environment_id) == (limit, environment)
            and probe.fits is not None
        ]

    def _probe(self, cell: Cell, batch: int, limit: int, preparation: Preparation) -> BatchProbe:
        """Run two steps at a batch size in a process of its own."""
        on_host = self._device.kind == "cpu"
        output = self._directory.path / "checkpoints" / "try"
        remove_link(output)
        outcome = self._engine.run(
            TWO_STEP_PASS,
            TwoStepRequest(
                cell=cell,
                seed=cell.seed,
                device=self._device.kind,
                preparation=preparation,
                output=str(output),
                tensors=False,
                memory_limit_bytes=None if on_host else self._limit,
            ).model_dump_json(),
            log_file=self._log(cell),
            timeout_s=float(self._profile.run.timeout_s),
            on_progress=lambda _: None,
            memory_limit_bytes=limit if on_host else None,
        )
        shutil.rmtree(output, ignore_errors=True)
        parsed = parse_result(outcome, "two_step", TwoStepPass)
        peak = _peak(parsed, on_host=on_host)
        how = (outcome.limit or ENFORCED) if on_host else ENFORCED
        return BatchProbe(
            cell=cell,
            batch=batch,
            limit_bytes=limit,
            limit=how,
            status=parsed.status,
            fits=_fits(parsed, outcome, peak, limit if how != ENFORCED else None),
            peak_bytes=peak,
            environment_id=preparation.environment.environment_id,
            wall_s=outcome.wall_s,
            failure=parsed.failure,
        )

    def _log(self, cell: Cell) -> Path:
        return self._directory.file("logs", f"try-{cell.cell_id}", ".log")


def _peak(parsed: WorkerResult[TwoStepPass], *, on_host: bool) -> int | None:
    """Return the peak that is compared with the limit: RSS on the host, reserved memory on a card."""
    if parsed.result is None:
        return None
    memory = parsed.result.memory
    return memory.peak_rss_bytes if on_host else memory.peak_reserved_bytes


def _fits(
    parsed: WorkerResult[Any], outcome: Outcome, peak: int | None, judged_against: int | None
) -> bool | None:
    """Return whether a probe stayed within its limit; None if it failed for another reason than memory.

    `judged_against` is the limit if nothing enforces it, else None.
    """
    if parsed.status == "oom":
        return False
    # If no limit is enforced, a kill from outside means that the machine itself ran out of memory.
    if judged_against is not None and outcome.exit_code == -9 and not outcome.timed_out:
        return False
    if parsed.status != "ok":
        return None
    if judged_against is None:
        return True
    return None if peak is None else peak <= judged_against
