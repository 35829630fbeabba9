"""Cells on this machine, a process each, through a multiprocessing context.

`forkserver` forks workers from a small server that has imported torch and transformers already: a
worker starts in a tenth of a second instead of six. `spawn` starts a fresh interpreter, which a
process that will touch CUDA needs. The parent waits in `connection.wait`, which does not spin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from bench.errors import FtbenchError
from bench.messages import Event, Progress
from bench.worker import entry

LOG_TAIL_LINES = 20
_EXIT_GRACE_S = 30.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a worker ended. Without an answer, the exit code and the log say what happened."""

    answer: dict[str, Any] | None
    refusal: FtbenchError | None
    exit_code: int | None
    timed_out: bool
    wall_s: float
    log_tail: str
    last: Progress | None = None  # where it was when it was last heard of


class Engine(Protocol):
    """Runs one request in a process of its own."""

    def run(
        self,
        module: str,
        request: str,
        *,
        log_file: Path,
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> Outcome:
        """Run `module.main` on a JSON request and return how it ended."""


class LocalEngine:
    """Worker processes on this machine."""

    def __init__(
        self, isolation: Literal["forkserver", "spawn"], environment: Mapping[str, str]
    ) -> None:
        """Make an engine whose workers start with these environment variables set."""
        self._environment = dict(environment)
        if isolation == "forkserver":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["bench.worker.preload"])
            self._process: type[ForkServerProcess | SpawnProcess] = context.Process
        else:
            self._process = multiprocessing.get_context("spawn").Process

    def run(
        self,
        module: str,
        request: str,
        *,
        log_file: Path,
        timeout_s: float,
        on_progress: Callable[[Progress], None],
    ) -> Outcome:
        """Run `module.main` on a JSON request and return how it ended; never raises for a worker."""
        began = time.monotonic()
        receiver, sender = connection.Pipe(duplex=False)
        process = self._process(
            target=entry.start, args=(module, request, sender, str(log_file), self._environment)
        )
        process.start()
        sender.close()
        ended = _end_of(process)
        heard: list[Progress] = []

        def listener(progress: Progress) -> None:
            heard[:] = [progress]
            on_progress(progress)

        try:
            last, timed_out = _listen(receiver, ended, began + timeout_s, listener)
            if ended is not None and not timed_out:
                connection.wait([ended], _EXIT_GRACE_S)
        finally:
            _end(process)
            receiver.close()
            if ended is not None:
                os.close(ended)
        return Outcome(
            answer=last.body if last and last.kind == "answer" else None,
            refusal=FtbenchError.from_json(last.body) if last and last.kind == "refusal" else None,
            exit_code=process.exitcode,
            timed_out=timed_out,
            wall_s=time.monotonic() - began,
            log_tail=log_tail(log_file),
            last=heard[0] if heard else None,
        )


def _end_of(process: ForkServerProcess | SpawnProcess) -> int | None:
    """Return a descriptor that is ready when the process has ended; None where it has already.

    Not `Process.sentinel`: children that the worker leaves behind would hold that one open.
    """
    assert process.pid is not None
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None


def _listen(
    receiver: connection.Connection,
    ended: int | None,
    deadline: float,
    on_progress: Callable[[Progress], None],
) -> tuple[Event | None, bool]:
    """Return (last event, timed out): wait for events until an answer, the end, or the deadline."""
    while (remaining := deadline - time.monotonic()) > 0:
        gone = ended is None or ended in connection.wait([receiver, ended], remaining)
        if not receiver.poll():
            if gone:  # and left nothing unread
                return None, False
            continue
        try:
            event = Event.model_validate(json.loads(receiver.recv_bytes()))
        except (EOFError, OSError, ValueError, ValidationError):
            return None, False  # closed or cut off in the middle of a message: the worker died
        if event.kind != "progress":
            return event, False
        on_progress(Progress.model_validate(event.body))
    return None, True


def _end(process: ForkServerProcess | SpawnProcess) -> None:
    """End a worker that still runs, with the children in its session."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError):  # all gone, or no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def log_tail(log_file: Path) -> str:
    """Return the last lines of a worker's log; empty where there is none."""
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_TAIL_LINES:])
