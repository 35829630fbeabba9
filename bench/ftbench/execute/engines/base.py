"""The interface of engines, which run workers: an engine takes work and returns a future of its outcome.

A new engine (another machine, a scheduler) is a class with `submit` and `cancel`; `make_engine` chooses one.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ftbench.base.errors import FtbenchError
from ftbench.base.files import remove_link
from ftbench.records.messages import Progress

if TYPE_CHECKING:
    from ftbench.plan.devices import Placement
    from ftbench.plan.profile import Run

OnProgress = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class Work:
    """One request to a worker process: `module.main` is called with the JSON data of `request`.

    The worker's output goes into `log_file`, that of the processes it launches into `rank_logs`. With
    `memory_limit_bytes`, the engine limits the worker's memory if it can; the outcome says whether it did.
    """

    module: str
    request: str
    log_file: Path
    timeout_s: float
    memory_limit_bytes: int | None = None
    rank_logs: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a worker. Without an answer, the exit code and the log show what happened."""

    answer: dict[str, Any] | None
    refusal: FtbenchError | None
    exit_code: int | None
    timed_out: bool
    wall_s: float
    log_tail: str
    last: Progress | None = None  # the last progress that it reported
    oom_killed: bool | None = None  # whether the kernel killed a process of its control group
    limit: str | None = None  # with a memory limit: `enforced`, or the reason that it is not
    rank_log_tails: tuple[str, ...] = ()  # of the processes that it launched


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A folder in which a worker reads and writes; requests have names relative to it.

    An engine whose workers see another file system uses a folder there.
    """

    root: Path

    def path(self, name: str) -> Path:
        """Return the path of a relative name; raises ValueError if it leads out of the folder."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"not a name within a workspace: {name}")
        return self.root / relative

    def clear(self, *names: str) -> None:
        """Remove the files, folders or links with these names, so that new ones can be written there."""
        for name in names:
            place = self.path(name)
            remove_link(place)
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    place.unlink(missing_ok=True)


class Engine(abc.ABC):
    """Runs work in processes, as many at a time as it has places."""

    places: int = 1

    def warm_up(self) -> None:  # noqa: B027 - most engines have nothing to get ready
        """Begin with what makes workers start fast, and do not wait for it."""

    @abc.abstractmethod
    def submit(self, work: Work, on_progress: OnProgress) -> Future[Outcome]:
        """Start a worker as soon as a place is free; its failure is an outcome, never an exception.

        `on_progress` may be called from another thread.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """End all workers, and return when they have ended."""

    def workspace(self, root: Path) -> Workspace:
        """Return the workspace of the workers that stands for a folder of this machine."""
        return Workspace(root)

    def run(
        self,
        module: str,
        request: str,
        *,
        log_file: Path,
        timeout_s: float,
        on_progress: OnProgress = lambda _: None,
        memory_limit_bytes: int | None = None,
    ) -> Outcome:
        """Run `module.main` on a JSON request and return its outcome; an interruption ends the worker first."""
        work = Work(module, request, log_file, timeout_s, memory_limit_bytes)
        future = self.submit(work, on_progress)
        try:
            return future.result()
        except BaseException:
            self.cancel()
            raise


def make_engine(run: Run, device: Placement) -> Engine:
    """Return the engine for a profile's cells on a device.

    On the CPU, workers are forked from a server that has imported torch already. With CUDA, each worker is
    spawned, since a process that has used CUDA cannot be forked.
    """
    from ftbench.execute.engines.local import LocalEngine

    isolation = run.isolation
    if isolation == "auto":
        isolation = "spawn" if device.kind == "cuda" else "forkserver"
    return LocalEngine(isolation, device.environment)
