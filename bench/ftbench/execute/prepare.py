"""The prepare stage of a run, and whether a run directory's records are of the same environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ftbench.base.errors import EnvironmentMismatch
from ftbench.execute.engines.base import Engine
from ftbench.execute.outcome import require_answer
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.plan.profile import Profile
from ftbench.records.messages import (
    Preparation,
    PrepareRequest,
    Progress,
)
from ftbench.records.record import Environment, Record
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
    return require_answer(outcome, "prepare stage", Preparation, log)


def require_same_environment(
    environment: Environment, records: Iterable[Record], directory: RunDirectory
) -> None:
    """Raise EnvironmentMismatch if records of the directory come from another environment."""
    there = directory.environments()
    used = {record.environment_id for record in records if record.status == "ok"}
    others = sorted(used - {environment.environment_id})
    if not others:
        return
    changes = _differences(there[others[0]], environment) if others[0] in there else ["unknown"]
    raise EnvironmentMismatch(
        "its records were measured under another environment",
        where=str(directory.path),
        got="; ".join(changes),
        expected="the environment that the other cells ran under",
        hint="--out for a new directory, or --allow-other-environment to put both into one",
    )


def _differences(old: Environment, new: Environment) -> list[str]:
    """Return what changed between two environments, one text for each value."""
    before, after = old.flat(), new.flat()
    return [
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted((before.keys() | after.keys()) - {"git_commit"})
        if before.get(name) != after.get(name)
    ]
