"""Outcome: how a worker's process ended, read as a status with a result or a failure.

An answer is checked strictly before it is believed; no answer is a failure with what is known of it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ftbench.base.errors import WorkerError
from ftbench.base.redaction import redact
from ftbench.execute.engines.base import Outcome
from ftbench.records.record import Failure, Status

Model = TypeVar("Model", bound=BaseModel)
_STATUS: TypeAdapter[Status] = TypeAdapter(Status)
_SIGKILL = 9


@dataclasses.dataclass(frozen=True)
class WorkerResult(Generic[Model]):
    """A status, with a result where it is `ok` and a failure where it is not."""

    status: Status
    result: Model | None = None
    failure: Failure | None = None


def parse_result(outcome: Outcome, key: str, model: type[Model]) -> WorkerResult[Model]:
    """Return what came of a worker whose answer holds a `model` under `key`."""
    if outcome.answer is None:
        return _without_answer(outcome)
    try:
        status = _STATUS.validate_python(outcome.answer.get("status"))
        if status == "ok":
            return WorkerResult(status, model.model_validate(outcome.answer.get(key)))
        failure = Failure.model_validate(outcome.answer.get("failure"))
    except ValidationError as error:
        message = f"an answer that is no {key}: {error}"
        return _failed("invalid", outcome, message)
    if status == "crashed" and outcome.oom_killed:  # a child of the worker was: it lived to tell
        status = "oom"
    said = {"message": redact(failure.message), "log_tail": outcome.log_tail}
    return WorkerResult(status, failure=failure.model_copy(update=said))


def require_answer(outcome: Outcome, stage: str, model: type[Model], log: Path | None) -> Model:
    """Return the answer of a worker that a command cannot do without.

    Raises what it refused, and WorkerError where it has no answer, or one that is no `model`.
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
        what = f"the {stage} gave an answer that is none"
        raise WorkerError(what, where=where, got=str(error)) from error


def how_it_ended(outcome: Outcome) -> str:
    """Return how a worker ended that gave no answer, in words that follow its name."""
    if outcome.timed_out:
        return f"was stopped at its time limit, after {outcome.wall_s:.0f} s"
    if outcome.exit_code == -_SIGKILL and outcome.oom_killed:
        return "was killed by the kernel: the memory of its control group ran out"
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return f"was killed by signal {-outcome.exit_code}"
    return f"ended without an answer, exit code {outcome.exit_code}"


def _without_answer(outcome: Outcome) -> WorkerResult[Model]:
    if outcome.refusal is not None:
        return _failed("invalid", outcome, redact(str(outcome.refusal)))
    status: Status = "timeout" if outcome.timed_out else "crashed"
    # A SIGKILL alone says nothing of memory: anybody may have sent it. The kernel's count does.
    if outcome.exit_code == -_SIGKILL and outcome.oom_killed and not outcome.timed_out:
        status = "oom"
    return _failed(status, outcome, f"the worker {how_it_ended(outcome)}")


def _failed(status: Status, outcome: Outcome, message: str) -> WorkerResult[Model]:
    failure = Failure(
        message=message,
        phase=outcome.last.phase if outcome.last else None,
        step=outcome.last.step if outcome.last else None,
        log_tail=outcome.log_tail,
    )
    return WorkerResult(status, failure=failure)
