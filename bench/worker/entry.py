"""Where a worker process begins. Light: torch is imported only after the environment is set.

The process gets a session of its own (so that it and its data-loader children can be ended
together), dies with its parent, and writes everything it prints into a log file. It speaks to the
parent in JSON through a pipe; nothing is pickled.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from bench.errors import FtbenchError
from bench.messages import Event, Progress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start(
    module: str, request: str, channel: Connection, log_file: str, environment: Mapping[str, str]
) -> None:
    """Run `module.main(request, emit)` and send its answer; the target of a worker process."""
    parent = os.getppid()
    os.environ.update(environment)
    os.setsid()
    _die_with_parent(parent)
    _redirect_output(log_file)
    faulthandler.enable()  # a crash in native code leaves its stack in the log

    def send(event: Event) -> None:
        channel.send_bytes(event.model_dump_json().encode())

    def emit(progress: Progress) -> None:
        send(Event(kind="progress", body=progress.model_dump(exclude_none=True)))

    try:
        answer: dict[str, Any] = importlib.import_module(module).main(json.loads(request), emit)
    except FtbenchError as error:
        traceback.print_exc()
        send(Event(kind="refusal", body=error.to_json()))
    else:
        send(Event(kind="answer", body=answer))


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even inside native code (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call above
            os._exit(1)


def _redirect_output(log_file: str) -> None:
    """Send this process's stdout and stderr, its children's and native code's, to the log file."""
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
