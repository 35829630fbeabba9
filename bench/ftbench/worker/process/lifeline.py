"""Lifeline: a process ends when the process that started it ends, even if that one is killed.

The kernel sends the signal (Linux, prctl(2)), so it ends even native code that never returns. The signal is
tied to the *thread* that started the process: start processes from a thread that keeps running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def set_death_signal() -> None:
    """Make the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the parent: it ends its workers, and says so.

    The parent starts workers with the signal blocked: an import that is interrupted prints a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def die_with_parent(parent: int) -> None:
    """End with the parent, whose PID this is; at once if it has ended already."""
    set_death_signal()
    if sys.platform == "linux" and os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def children_die_with_this() -> None:
    """Make every process that is forked from this one, and its descendants, end with its parent."""
    forking: list[int] = []
    os.register_at_fork(
        before=lambda: forking.append(os.getpid()),
        after_in_parent=forking.pop,
        after_in_child=lambda: die_with_parent(forking.pop()),
    )


# Reads until every writer of the pipe has ended, then kills its own process group.
_GUARD = "import os, signal; os.read(0, 1); os.killpg(0, signal.SIGKILL)"


def guard_group() -> None:
    """Make the whole process group end when this process, its leader, ends, even if it is killed.

    For processes that are not forked from this one: a data loader's that are spawned, or come from a server. The
    guard is a small process that waits at the end of a pipe. A process that does not lead its group, such as a
    rank, does nothing: the group's leader has guarded it.
    """
    if os.getpgrp() != os.getpid():
        return
    reading, writing = os.pipe()
    os.set_inheritable(writing, False)
    # The writing end is closed by the kernel alone, after this process has its exit code.
    subprocess.Popen([sys.executable, "-S", "-c", _GUARD], stdin=reading, stdout=subprocess.DEVNULL)
    os.close(reading)
