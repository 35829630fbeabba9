"""Watch: a thread of the launcher that reports positions, and sees in which order the ranks end.

torch's launcher names one process that failed; after a crash, the others soon fail as well, since they lost it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from ftbench.records.messages import Progress
from ftbench.worker.launch.board import Board

_REPORT_EVERY_S = 0.5
# A rank that has not ended by then, after another has failed, is stopped or stuck in the kernel.
_GRACE_S = 3.0


@dataclasses.dataclass(frozen=True)
class End:
    """The end of a rank's process: its exit code, negative for a signal, None if it is not known."""

    rank: int
    exit_code: int | None


class Watch(threading.Thread):
    """Watches the ranks until `stop`; `ends` has those that ended before, in order."""

    def __init__(self, board: Board, emit: Callable[[Progress], None]) -> None:
        super().__init__(daemon=True)
        self._board = board
        self._emit = emit
        self._stopped = False
        self._descriptors: dict[int, int] = {}  # of living ranks: descriptor -> rank
        self._known: set[int] = set()
        self._failed_at: float | None = None
        self.ends: list[End] = []

    def stop(self) -> None:
        """End the watch, and return when it has ended."""
        self._stopped = True
        self.join()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def run(self) -> None:
        """Look at the ranks, and report the positions at most twice per second."""
        reported, last = time.monotonic(), None
        # No lock and no pipe is touched before all ranks are there: they are forked meanwhile.
        while not self._stopped:
            self._find()
            if len(self._known) < self._board.ranks:
                time.sleep(0.02)
                continue
            self._look()
            now = time.monotonic()
            if now - reported >= _REPORT_EVERY_S:
                progress = self._board.progress()
                if progress is not None and progress != last:
                    self._emit(progress)
                reported, last = now, progress

    def _find(self) -> None:
        for rank in set(range(self._board.ranks)) - self._known:
            pid = self._board.row(rank).pid
            if pid is None:
                continue
            self._known.add(rank)
            try:
                self._descriptors[os.pidfd_open(pid)] = rank
            except ProcessLookupError:
                self.ends.append(End(rank, None))

    def _look(self) -> None:
        """Wait a moment for the end of a rank; after the first failure, end those that do not end themselves."""
        poll = select.poll()
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        ended = [descriptor for descriptor, _ in poll.poll(100)]
        if not self._descriptors:
            time.sleep(0.1)
        for descriptor in ended:
            rank = self._descriptors.pop(descriptor)
            exit_code = _exit_code(descriptor)
            os.close(descriptor)
            self.ends.append(End(rank, exit_code))
            if exit_code != 0:
                self._failed_at = self._failed_at or time.monotonic()
        if self._failed_at is not None and time.monotonic() - self._failed_at > _GRACE_S:
            for descriptor in self._descriptors:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def _exit_code(descriptor: int) -> int | None:
    """Return the exit code of a process that has ended, which is left for torch's launcher to collect."""
    try:
        found = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:  # the launcher was faster
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
