"""Outcome: the end of a worker's process, turned into a status with a result or a failure.

An answer is validated strictly; without an answer, the failure describes how the process ended.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ftbench.base.errors import WorkerError
from ftbench.base.redaction import redact
from ftbench.execute.engines.base import Outcome
from ftbench.execute.ranks import rank_behind
from ftbench.records.messages import Progress, RankPosition
from ftbench.records.record import Failure, Status

Model = TypeVar("Model", bound=BaseModel)
_STATUS: TypeAdapter[Status] = TypeAdapter(Status)
_SIGKILL = 9


@dataclasses.dataclass(frozen=True)
class WorkerResult(Generic[Model]):
    """A status, with a result if it is `ok` and a failure if it is not."""

    status: Status
    result: Model | None = None
    failure: Failure | None = None


def parse_result(outcome: Outcome, key: str, model: type[Model]) -> WorkerResult[Model]:
    """Return the result of a worker whose answer has a `model` under `key`, or its failure."""
    if outcome.answer is None:
        return _without_answer(outcome)
    try:
        status = _STATUS.validate_python(outcome.answer.get("status"))
        if status == "ok":
            return WorkerResult(status, model.model_validate(outcome.answer.get(key)))
        failure = Failure.model_validate(outcome.answer.get("failure"))
    except ValidationError as error:
        message = f"the worker's answer is not a valid {key}: {error}"
        return _failed("invalid", outcome, message)
    if status == "crashed" and outcome.oom_killed:  # the kernel killed a child, the worker survived
        status = "oom"
    details = {"message": redact(failure.message), "log_tail": _log_tail(outcome, failure.rank)}
    return WorkerResult(status, failure=failure.model_copy(update=details))


def require_answer(outcome: Outcome, stage: str, model: type[Model], log: Path | None) -> Model:
    """Return the answer of a worker as a `model`.

    Raises the worker's own error, and WorkerError if there is no answer or it is not a `model`.
    """
    if outcome.refusal is not None:
        raise outcome.refusal
    where = str(log) if log else None
    if outcome.answer is None:
        tail = outcome.log_tail or None
        raise WorkerError(f"the {stage} {how_it_ended(outcome)}", where=where, got=tail)
    try:
        return model.model_validate(outcome.answer)
    except ValidationError as error:
        what = f"the {stage} gave an answer that is not valid"
        raise WorkerError(what, where=where, got=str(error)) from error


def how_it_ended(outcome: Outcome) -> str:
    """Return a phrase for the end of a worker without an answer, to follow its name."""
    if outcome.timed_out:
        return f"was stopped at its time limit, after {outcome.wall_s:.0f} s"
    if outcome.exit_code == -_SIGKILL and outcome.oom_killed:
        return "was killed by the kernel because its control group ran out of memory"
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return f"was killed by signal {-outcome.exit_code}"
    return f"ended without an answer, exit code {outcome.exit_code}"


def _without_answer(outcome: Outcome) -> WorkerResult[Model]:
    if outcome.refusal is not None:
        return _failed("invalid", outcome, redact(str(outcome.refusal)))
    status: Status = "timeout" if outcome.timed_out else "crashed"
    # Anybody may have sent a SIGKILL: only the kernel's own count shows that memory ran out.
    if outcome.exit_code == -_SIGKILL and outcome.oom_killed and not outcome.timed_out:
        status = "oom"
    return _failed(status, outcome, f"the worker {how_it_ended(outcome)}")


def _failed(status: Status, outcome: Outcome, message: str) -> WorkerResult[Model]:
    last = outcome.last
    at: Progress | RankPosition | None = last
    rank = rank_behind(last.ranks) if last and outcome.timed_out else None
    if last is not None and rank is not None:
        at = last.ranks[rank]
        message = f"{message}, while the other ranks waited for rank {rank}"
    failure = Failure(
        message=message,
        phase=at.phase if at else None,
        step=at.step if at else None,
        log_tail=_log_tail(outcome, rank),
        rank=rank,
    )
    return WorkerResult(status, failure=failure)


def _log_tail(outcome: Outcome, rank: int | None) -> str:
    """Return the end of a rank's log, or of the worker's if none is meant."""
    if rank is None or rank >= len(outcome.rank_log_tails):
        return outcome.log_tail
    return outcome.rank_log_tails[rank]
