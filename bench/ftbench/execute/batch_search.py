"""Frontier: the largest batch of each length that two optimizer steps get through, measured.

Like the runner, cells -> engine -> store, but the next cell depends on how the last one ended. Each
try is a process of its own; tries are kept, so an interrupted search goes on where it stopped.
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
    """One length (and whatever else varies but the batch), and its edge."""

    cell: Cell
    edge: Edge


class Listener(Protocol):
    """Is told how the search goes on."""

    def preparing(self, progress: Progress) -> None:
        """Tell where the prepare stage is."""

    def tried(self, one: BatchProbe) -> None:
        """Tell how a try ended."""


def shapes(grid: Grid) -> list[Cell]:
    """Return one cell of each length, and of each value of the other axes, in rising length."""
    first: dict[str, Cell] = {}
    for cell in grid.cells:
        facets = {name: value for name, value in cell.facets.items() if name not in NOT_SEARCHED}
        first.setdefault(json.dumps(facets, sort_keys=True, default=str), cell)
    return sorted(first.values(), key=lambda cell: cell.max_length)


def with_batch(cell: Cell, batch: int) -> Cell:
    """Return the cell at another batch size, on as many documents as two steps need at least."""
    of_batch = cell.with_shape(batch, cell.max_length)
    return of_batch.model_copy(update={"train_size": 2 * of_batch.examples_per_step})


class Frontier:
    """Searches the largest batch of each shape of a grid."""

    def __init__(
        self,
        profile: Profile,
        grid: Grid,
        directory: RunDirectory,
        engine: Engine,
        device: Placement,
        listener: Listener,
        *,
        limit_bytes: int | None,
        largest: int,
    ) -> None:
        """Make a search; raises ProfileError without a limit on a device that has none of its own."""
        if limit_bytes is None and device.kind == "cpu":
            raise ProfileError(
                "a limit is needed on the CPU",
                where="--limit",
                expected="how much memory a worker may have, such as 4GiB",
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
        """Make the tries that are missing and return a row a shape; raises what prepare refuses."""
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
        """Return the edge of one shape, from the tries that are there and those still needed."""
        tries = self._made(cell, limit, preparation)
        while (batch := next_batch(tries, limit, self._largest)) is not None:
            one = self._try(with_batch(cell, batch), batch, limit, preparation)
            self._directory.write_try(one)
            self._listener.tried(one)
            tries.append(one)
        return Row(cell, edge(tries))

    def _made(self, cell: Cell, limit: int, preparation: Preparation) -> list[BatchProbe]:
        """Return the tries of a shape that were made before, under the same limit and environment."""
        environment = preparation.environment.environment_id
        return [
            one
            for one in self._directory.tries()
            if one.cell == with_batch(cell, one.batch)
            and (one.limit_bytes, one.environment_id) == (limit, environment)
            and one.fits is not None
        ]

    def _try(self, cell: Cell, batch: int, limit: int, preparation: Preparation) -> BatchProbe:
        """Return how two steps at a batch size ended, in a process of its own."""
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
    """Return what the limit is held against: RSS on the host, reserved memory on a card."""
    if parsed.result is None:
        return None
    memory = parsed.result.memory
    return memory.peak_rss_bytes if on_host else memory.peak_reserved_bytes


def _fits(
    parsed: WorkerResult[Any], outcome: Outcome, peak: int | None, judged_against: int | None
) -> bool | None:
    """Return whether a try kept within its limit; None where it ended for another reason."""
    if parsed.status == "oom":
        return False
    # Under a limit that nothing enforces here, a kill from outside is the machine's own limit.
    if judged_against is not None and outcome.exit_code == -9 and not outcome.timed_out:
        return False
    if parsed.status != "ok":
        return None
    if judged_against is None:
        return True
    return None if peak is None else peak <= judged_against
