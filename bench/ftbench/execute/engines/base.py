"""What runs workers: an engine takes work and gives a future of how it ended.

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

    The worker's output goes into `log_file`. Under `memory_limit_bytes` the worker's memory is limited if the
    engine can do so; the outcome says whether it was.
    """

    module: str
    request: str
    log_file: Path
    timeout_s: float
    memory_limit_bytes: int | None = None


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
    oom_killed: bool | None = None  # whether the kernel killed a process of its control group
    limit: str | None = None  # of a memory limit: `enforced`, or the reason why it is not


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A folder that a worker reads and writes in; requests have names relative to it.

    An engine whose workers see another file system lays out a folder of its own there.
    """

    root: Path

    def path(self, name: str) -> Path:
        """Return the path of a relative name; raises ValueError for one that leads out of the folder."""
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"not a name within a workspace: {name}")
        return self.root / relative

    def clear(self, *names: str) -> None:
        """Remove what is left at these names, links as such: something of ours is about to be written there."""
        for name in names:
            place = self.path(name)
            remove_link(place)
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    place.unlink(missing_ok=True)


class Engine(abc.ABC):
    """Runs work in processes, so many at a time as it has places."""

    places: int = 1

    def warm_up(self) -> None:  # noqa: B027 - most engines have nothing to get ready
        """Begin with what makes workers start fast, and do not wait for it."""

    @abc.abstractmethod
    def submit(self, work: Work, on_progress: OnProgress) -> Future[Outcome]:
        """Start a worker as soon as a place is free; a worker that fails is an outcome, never an exception.

        `on_progress` may be called from another thread.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """End all workers, and return when they are gone."""

    def workspace(self, root: Path) -> Workspace:
        """Return where workers read and write what belongs into a folder of this machine."""
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
        """Run `module.main` on a JSON request and return how it ended; an interruption ends the worker first."""
        work = Work(module, request, log_file, timeout_s, memory_limit_bytes)
        future = self.submit(work, on_progress)
        try:
            return future.result()
        except BaseException:
            self.cancel()
            raise


def make_engine(run: Run, device: Placement) -> Engine:
    """Return the engine that a profile's cells run on, for the device that was chosen.

    On a CPU workers are forked from a server that has imported torch already; where CUDA is used each is
    spawned, since a process that has touched CUDA cannot be forked.
    """
    from ftbench.execute.engines.local import LocalEngine

    isolation = run.isolation
    if isolation == "auto":
        isolation = "spawn" if device.kind == "cuda" else "forkserver"
    return LocalEngine(isolation, device.environment)
