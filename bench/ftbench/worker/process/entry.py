"""The entry point of a worker process. torch is imported only after the environment is set.

The process gets a session of its own (so that it and its data-loader children can be ended together), dies
with its parent, and prints into a log file. It sends lines of JSON to the parent through a pipe; nothing
is pickled.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import multiprocessing
import os
import select
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ftbench.base.errors import FtbenchError
from ftbench.records.messages import Event, Progress
from ftbench.worker.process.lifeline import (
    children_die_with_this,
    ignore_interrupts,
    set_death_signal,
)


def start(
    module: str,
    request: str,
    channel: Connection,
    log_file: str,
    environment: Mapping[str, str],
    memory_group: str | None = None,
) -> None:
    """Run `module.main(request, emit)` and send its answer; the target of a worker process.

    `memory_group` is the `cgroup.procs` file that gets this process's PID before anything large is loaded.
    """
    os.environ.update(environment)
    os.setsid()
    ignore_interrupts()
    set_death_signal()
    if _nobody_listens(channel):  # the parent ended before the call above
        os._exit(1)
    children_die_with_this()  # data-loader processes
    # A worker inherits `forkserver` or `spawn`: data-loader processes would import torch anew, for every epoch.
    multiprocessing.set_start_method(None, force=True)  # the platform's default, as in a script
    redirect_output(log_file)
    faulthandler.enable()  # a crash in native code leaves its stack in the log
    if memory_group is not None:
        Path(memory_group).write_text(str(os.getpid()))

    def send(event: Event) -> None:
        line = event.model_dump_json().encode() + b"\n"
        while line:
            line = line[os.write(channel.fileno(), line) :]

    def emit(progress: Progress) -> None:
        send(Event(kind="progress", body=progress.model_dump(exclude_none=True)))

    try:
        worker = importlib.import_module(module)
        # What is imported stays. The Trainer has all garbage collected before it trains: to look at every
        # object of torch and transformers takes a quarter of a second, and unshares their pages.
        gc.freeze()
        answer: dict[str, Any] = worker.main(json.loads(request), emit)
    except FtbenchError as error:
        traceback.print_exc()
        send(Event(kind="refusal", body=error.to_json()))
    else:
        send(Event(kind="answer", body=answer))


def _nobody_listens(channel: Connection) -> bool:
    """Return whether the other end of the pipe is closed, since the parent has ended."""
    poll = select.poll()
    poll.register(channel.fileno(), 0)  # errors are reported even with an empty mask
    return any(event & select.POLLERR for _, event in poll.poll(0))


def redirect_output(log_file: str) -> None:
    """Redirect stdout and stderr of this process, its children and native code to the log file.

    What had its name is replaced: writing into a link, a pipe or a second name of a file would reach elsewhere.
    """
    Path(log_file).unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(log_file, flags, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
