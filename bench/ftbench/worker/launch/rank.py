"""Rank: one of the processes that train together, forked by torch's elastic launcher.

It runs what a single process would be asked, on a card of its own or its share of the processors. Its output goes
into a log of its own, its position onto the board, and a failure into a pipe, since the launcher gets no answer
from a process that fails.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from ftbench.base.errors import FtbenchError
from ftbench.plan.cell import Cell
from ftbench.records.messages import LaunchRequest, Progress, of_rank
from ftbench.worker.launch.board import Board
from ftbench.worker.launch.settled_group import join_settled_group
from ftbench.worker.process.entry import redirect_output
from ftbench.worker.process.failures import failure_answer
from ftbench.worker.process.lifeline import die_with_parent

COUNT_EVERY_S = 0.2
# A pipe holds 64 KiB (pipe(7)): a rank that fails must not wait for a reader.
PIPE_BYTES = 64 << 10
# A character is at most twelve bytes of JSON: those beyond the first 65,536 are written as two.
_MOST_CHARACTERS = 4 << 10


@dataclasses.dataclass(frozen=True)
class Task:
    """What the launcher hands to its ranks: the request, the board, a pipe for each rank's failure."""

    request: LaunchRequest
    board: Board
    pipes: tuple[tuple[int, int], ...]
    launcher: int  # its PID
    threads: int


def main(task: Task) -> dict[str, Any]:
    """Run the request as the rank that the environment names; return the answer, or end with exit code 1."""
    rank = int(os.environ["RANK"])
    _become(task, rank)
    body = request_of(task.request, rank)

    def emit(progress: Progress) -> None:
        task.board.advance(rank, progress)

    try:
        if body.get("tensors"):
            # No other thread of Python's: garbage that it collected would be freed unseen (`CpuTensorMemory`).
            join_settled_group()
        else:
            threading.Thread(target=_count, args=(task.board, rank), daemon=True).start()
        answer: dict[str, Any] = importlib.import_module(task.request.module).main(body, emit)
    except FtbenchError as error:
        answer = {"status": "invalid", "failure": {"message": str(error)}}
    except BaseException as error:
        answer = failure_answer(error, phase=None, step=None)
    if answer["status"] != "ok":
        os.write(task.pipes[rank][1], _short(answer))
        os._exit(1)  # the launcher ends the others
    return answer


def request_of(request: LaunchRequest, rank: int) -> dict[str, Any]:
    """Return a single process's request as one rank has it: with files of its own, and its strategy's settings."""
    body = dict(request.request)
    if "steps_file" in body:  # the table of the cell's steps is that of all ranks
        body["steps_file"] = of_rank(body["steps_file"], rank)
    if "samples_file" in body and rank:
        body["samples_file"] = of_rank(body["samples_file"], rank)
    cell = Cell.model_validate(body["cell"])
    assert cell.parallel is not None
    return body | {"cell": cell.with_settings(**cell.parallel.arguments).model_dump(mode="json")}


def _become(task: Task, rank: int) -> None:
    """Make this process a rank of its own: its end, its log, its device."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the launcher's handler waits for Python
    # torch asks the kernel for a SIGINT at the launcher's end, which a worker ignores.
    die_with_parent(task.launcher)
    task.board.begin(rank, os.getpid())
    redirect_output(task.request.path(of_rank(task.request.log, rank)))
    os.environ |= rank_variables(task.request.devices, rank, task.threads)
    torch.set_num_threads(task.threads)


def rank_variables(devices: tuple[str, ...], rank: int, threads: int) -> dict[str, str]:
    """Return the environment variables of a rank: one card by UUID, or threads and gloo's interface on the CPU.

    A rank sees its card only, as device 0, so it is the first of its machine to whoever asks.
    """
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[rank], "LOCAL_RANK": "0"}
    # All ranks are on this machine. accelerate chooses the threads itself if the variable is not set.
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": interface}


def _count(board: Board, rank: int) -> None:
    """Keep the number of collectives on the board: a rank that others wait for has begun fewer than they."""
    while True:
        group: Any = dist.group.WORLD if dist.is_initialized() else None
        if group is not None:
            board.count(rank, group._get_sequence_number_for_group())
        time.sleep(COUNT_EVERY_S)


def _short(answer: dict[str, Any]) -> bytes:
    """Return a failed answer as JSON that a pipe can hold."""
    failure = answer["failure"]
    message = failure["message"][:_MOST_CHARACTERS]
    return json.dumps(answer | {"failure": failure | {"message": message}}).encode()
