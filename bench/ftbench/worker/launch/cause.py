"""Cause: which rank's failure ended all of them. Pure.

A rank that ends takes the others with it: they fail in their next collective, or are ended by the launcher.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from ftbench.worker.launch.watch import End

# Texts in the errors of a rank that has lost another: of gloo's transport, of torch's store, of NCCL.
_LOST = ("gloo/", "connection closed by peer", "connection reset", "timed out waiting", "nccl")
_LATE = ("timed out waiting", "timed out", "timeout")

Answer = Mapping[str, Any]


def cause_of(ends: Sequence[End], answers: Mapping[int, Answer]) -> dict[str, Any]:
    """Return the failed answer of the rank that failed first, with its number.

    `ends` are the ends of processes in order, `answers` those of the ranks that could still tell of their failure.
    A rank whose error says that it lost another is not the cause, unless there is no other.
    """
    order = [end.rank for end in ends] or sorted(answers)
    codes = {end.rank: end.exit_code for end in ends}
    told = [rank for rank in order if rank in answers]
    own = [rank for rank in told if not _has_lost_another(answers[rank])]
    silent = [rank for rank in order if rank not in answers and codes.get(rank) != 0]
    first = order[0] if order else None
    # The launcher ends the others with a SIGTERM, and both ends may be seen at once, in any order.
    ended_by_launcher = bool(own) and first is not None and codes[first] == -signal.SIGTERM
    if first in silent and not ended_by_launcher:
        return _silent(first, codes[first])
    if own:
        return _with_rank(answers[own[0]], own[0])
    if silent and told:
        error = answers[told[0]]["failure"]["message"]
        if any(text in error.lower() for text in _LATE):
            message = f"rank {silent[0]} did not come to a collective in time; rank {told[0]} has: {error}"
            return _failed("timeout", silent[0], message)
        return _silent(silent[0], codes[silent[0]])
    if told:
        return _with_rank(answers[told[0]], told[0])
    return _failed("crashed", None, "a rank ended without an answer")


def _has_lost_another(answer: Answer) -> bool:
    message = answer["failure"]["message"].lower()
    return any(text in message for text in _LOST)


def _silent(rank: int, exit_code: int | None) -> dict[str, Any]:
    """Return the answer of a rank that ended without one."""
    how = "ended without an answer"
    if exit_code is not None:
        how += f", exit code {exit_code}"
    if exit_code is not None and exit_code < 0:
        how = f"was killed by signal {-exit_code}"
    return _failed("crashed", rank, f"rank {rank} {how}")


def _with_rank(answer: Answer, rank: int) -> dict[str, Any]:
    failure = answer["failure"]
    message = f"rank {rank}: {failure['message']}"
    return {**answer, "failure": {**failure, "rank": rank, "message": message}}


def _failed(status: str, rank: int | None, message: str) -> dict[str, Any]:
    return {"status": status, "failure": {"message": message, "rank": rank}}
