"""The prepare stage of a run, and the check that all records of a run directory have the same environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ftbench.base.errors import EnvironmentMismatch
from ftbench.execute.engines.base import Engine
from ftbench.execute.outcome import require_answer
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.plan.profile import Profile
from ftbench.records.environment import Environment
from ftbench.records.messages import (
    Preparation,
    PrepareRequest,
    Progress,
)
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory

PREPARE = "ftbench.worker.prepare.prepare"


def prepare(
    profile: Profile,
    cells: Sequence[Cell],
    directory: RunDirectory,
    engine: Engine,
    device: Placement,
    on_progress: Callable[[Progress], None],
) -> Preparation:
    """Probe the workload and tokenise the data of the cells, in a worker; raises the worker's error."""
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
    return require_answer(outcome, "prepare stage", Preparation, log)


def require_same_environment(
    environment: Environment, records: Iterable[Record], directory: RunDirectory
) -> None:
    """Raise EnvironmentMismatch if records of the directory come from another environment."""
    environments = directory.environments()
    used = {record.environment_id for record in records if record.status == "ok"}
    others = sorted(used - {environment.environment_id})
    if not others:
        return
    known = environments.get(others[0])
    changes = ["unknown"] if known is None else _differences(known, environment)
    raise EnvironmentMismatch(
        "its records were measured under another environment",
        where=str(directory.path),
        got="; ".join(changes),
        expected="the environment of the other cells",
        hint="--out for a new directory, or --allow-other-environment to have both in one",
    )


def _differences(old: Environment, new: Environment) -> list[str]:
    """Return the differences between two environments, one text per value."""
    before, after = old.flat(), new.flat()
    return [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted((before.keys() | after.keys()) - {"git_commit"})
        if before.get(name) != after.get(name)
    ]
