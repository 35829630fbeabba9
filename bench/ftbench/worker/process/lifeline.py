"""Lifeline: a process ends when the one that started it does, however that ends.

The kernel sends the signal (Linux, prctl(2)), so native code that never returns is ended too. It
follows the *thread* that started the process: start processes from one that lives on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def set_death_signal() -> None:
    """Have the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """End with the process that has this PID and started this one; at once where it has ended."""
    set_death_signal()
    if sys.platform == "linux" and os.getppid() != parent:  # it ended before the call above
        os._exit(1)


def children_die_with_this() -> None:
    """Have every process that is forked from this one, and from those, end with its parent."""
    forking: list[int] = []
    os.register_at_fork(
        before=lambda: forking.append(os.getpid()),
        after_in_parent=forking.pop,
        after_in_child=lambda: die_with_parent(forking.pop()),
    )
