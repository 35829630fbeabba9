"""Runs cells on this machine, one process per cell, through a multiprocessing context.

`forkserver` forks workers from a small server that has imported torch and transformers already: a
worker starts in a tenth of a second instead of six seconds. `spawn` starts a fresh interpreter, which
CUDA requires. The parent waits in `connection.wait`, which does not spin.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing import connection, forkserver, resource_tracker, spawn
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ftbench.base.errors import FtbenchError
from ftbench.base.redaction import redact, redact_file
from ftbench.execute.engines.base import Engine, OnProgress, Outcome, Work
from ftbench.execute.engines.cgroup import CgroupUnavailable, MemoryCgroup
from ftbench.execute.engines.channel import Channel, ProtocolError
from ftbench.records.messages import Event, Progress
from ftbench.worker.process import entry

SERVER = "ftbench.worker.server"  # makes the fork server end with this process
LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 1 << 16
_EXIT_GRACE_S = 30.0
_STARTING = threading.Lock()


class LocalEngine(Engine):
    """Worker processes on this machine, one per place."""

    def __init__(
        self,
        isolation: Literal["forkserver", "spawn"],
        environment: Mapping[str, str],
        places: int = 1,
    ) -> None:
        """Make an engine whose workers start with these environment variables set."""
        self.places = places
        self._environment = dict(environment)
        self._spawn = multiprocessing.get_context("spawn").Process
        self._process: type[ForkServerProcess | SpawnProcess] = self._spawn
        self._forks = isolation == "forkserver"
        if self._forks:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([SERVER, "ftbench.worker.preload"])
            self._process = context.Process
        # Each thread waits for one worker, which costs no processor time.
        self._threads = ThreadPoolExecutor(places, thread_name_prefix="ftbench-place")
        self._live: set[Future[Outcome]] = set()
        self._cancelled = os.eventfd(0)

    def warm_up(self) -> None:
        """Start the fork server, which imports what workers need.

        Call it in a thread that lives as long as the engine: the server ends with it.
        """
        if self._forks:
            with _interrupts_blocked():
                forkserver.ensure_running()

    def submit(self, work: Work, on_progress: OnProgress) -> Future[Outcome]:
        """Start a worker as soon as a place is free.

        Under a memory limit the worker is spawned, not forked: the kernel charges the pages that a fork server
        has touched to the server, so the limit would miss them.
        """
        if work.memory_limit_bytes is None:
            self.warm_up()
        future = self._threads.submit(self._run, work, on_progress)
        self._live.add(future)
        future.add_done_callback(self._live.discard)
        return future

    def cancel(self) -> None:
        """End all workers, and return when they have ended."""
        live = list(self._live)
        for future in live:
            future.cancel()  # has an effect only before its worker has started
        os.eventfd_write(self._cancelled, 1)
        wait(live)
        os.eventfd_read(self._cancelled)

    def _run(self, work: Work, on_progress: OnProgress) -> Outcome:
        began = time.monotonic()
        group, limit = _limited(work.memory_limit_bytes)
        before = _oom_kills(group)
        receiver, sender = connection.Pipe(duplex=False)
        channel = Channel(receiver.fileno())
        make = self._process if work.memory_limit_bytes is None else self._spawn
        arguments = (
            work.module,
            work.request,
            sender,
            str(work.log_file),
            self._environment,
            str(group.procs_file) if limit == "enforced" and group else None,
        )
        process = make(target=entry.start, args=arguments, name=_name())
        latest: list[Progress] = []
        ended: int | None = None

        def listener(progress: Progress) -> None:
            latest[:] = [progress]
            on_progress(progress)

        try:
            try:
                _start(process)
            except (EOFError, ConnectionError):  # the fork server ended meanwhile: start another
                process = make(target=entry.start, args=arguments, name=_name())
                _start(process)
            sender.close()
            ended = _end_of(process)
            deadline = began + work.timeout_s
            last, timed_out = _listen(channel, ended, self._cancelled, deadline, listener)
            if ended is not None and not timed_out:
                connection.wait([ended, self._cancelled], _EXIT_GRACE_S)
        finally:
            _end(process)
            receiver.close()
            if ended is not None:
                os.close(ended)
            for log in (work.log_file, *work.rank_logs):
                redact_file(log)
            after = _oom_kills(group)
            if group is not None and limit == "enforced":
                group.remove()
        return Outcome(
            answer=last.body if last and last.kind == "answer" else None,
            refusal=FtbenchError.from_json(last.body) if last and last.kind == "refusal" else None,
            exit_code=process.exitcode,
            timed_out=timed_out,
            wall_s=time.monotonic() - began,
            log_tail=log_tail(work.log_file),
            last=latest[0] if latest else None,
            oom_killed=None if before is None or after is None else after > before,
            limit=limit,
            rank_log_tails=tuple(map(log_tail, work.rank_logs)),
        )


def _name() -> str:
    """Return a name that no other process of this program has."""
    return f"ftbench-worker-{uuid.uuid4().hex}"


def _start(process: ForkServerProcess | SpawnProcess) -> None:
    with _interrupts_blocked(), _without_main(process.name):
        process.start()


@contextlib.contextmanager
def _without_main(own: str) -> Iterator[None]:
    """Start a process of this name without the parent's main module, which a worker does not use.

    multiprocessing would run it in the worker: a script that calls `ftbench.run` without `if __name__ ==
    "__main__"` would run itself again, and fail. Processes of other names start as ever.
    """
    with _STARTING:
        ordinary = spawn.get_preparation_data

        def preparation_data(name: str) -> dict[str, Any]:
            data = ordinary(name)
            kept = {key: value for key, value in data.items() if not key.startswith("init_main")}
            return kept if name == own else data

        spawn.get_preparation_data = preparation_data
        try:
            yield
        finally:
            spawn.get_preparation_data = ordinary


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in the processes that it starts meanwhile (they inherit the mask)."""
    resource_tracker.ensure_running()  # its start would end with the signal unblocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _limited(memory_limit_bytes: int | None) -> tuple[MemoryCgroup | None, str | None]:
    """Return the control group to watch, and the state of a limit: `enforced`, or the reason that it is not."""
    try:
        own = MemoryCgroup.own()
    except CgroupUnavailable as error:
        return None, None if memory_limit_bytes is None else str(error)
    if memory_limit_bytes is None:
        return own, None
    try:
        return own.make(memory_limit_bytes), "enforced"
    except CgroupUnavailable as error:
        return own, str(error)


def _oom_kills(group: MemoryCgroup | None) -> int | None:
    return group.oom_kills() if group is not None else None


def _end_of(process: ForkServerProcess | SpawnProcess) -> int | None:
    """Return a descriptor that becomes ready when the process ends; None if it has ended already.

    Not `Process.sentinel`: children that the worker leaves behind would keep that one open.
    """
    assert process.pid is not None
    try:
        return os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None


def _listen(
    channel: Channel,
    ended: int | None,
    cancelled: int,
    deadline: float,
    on_progress: Callable[[Progress], None],
) -> tuple[Event | None, bool]:
    """Return (last event, timed out): wait for events until an answer, the process's end, or the deadline.

    Events that have arrived are read before the clock is: this process may have been stopped, or starved of
    processor time, while the worker answered in time. An answer that came late but before the look counts, too.
    """
    waited = (
        (channel.fileno(), cancelled) if ended is None else (channel.fileno(), cancelled, ended)
    )
    while True:
        remaining = max(0.0, deadline - time.monotonic())
        ready = connection.wait(waited, 0 if ended is None else remaining)
        # Events that are unread at the process's end are read as well.
        gone = ended is None or ended in ready or cancelled in ready
        try:
            for event in channel.take():
                if event.kind != "progress":
                    return event, False
                on_progress(Progress.model_validate(event.body))
        except (EOFError, ProtocolError, ValidationError):
            return None, False  # closed, or cut off in the middle of a line: the worker has died
        if gone:
            return None, False
        if time.monotonic() >= deadline:
            return None, True


def _end(process: ForkServerProcess | SpawnProcess) -> None:
    """End a worker that is still running, and the children in its session."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError):  # all have ended, or it has no process group yet
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def log_tail(log_file: Path) -> str:
    """Return the last lines of a worker's log, of which no more than the end is read; empty without a log."""
    try:
        descriptor = os.open(log_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return ""
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return redact("\n".join(lines[-LOG_TAIL_LINES:]))
