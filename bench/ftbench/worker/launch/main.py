"""Launcher: starts the ranks of a cell through torch's own elastic launcher, as `torchrun` does, on this machine.

The ranks are forked, so torch is imported once, and stay in this process's session: whoever ends the session ends
all of them. There are no restarts: a rank that fails ends the cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import ftbench.worker.cell
import ftbench.worker.two_step_pass  # noqa: F401 - both are imported once, before the ranks are forked
from ftbench.plan.cell import Cell
from ftbench.records.messages import LaunchRequest, Progress
from ftbench.worker.launch import rank
from ftbench.worker.launch.board import Board
from ftbench.worker.launch.cause import cause_of
from ftbench.worker.launch.merge import merged_answer
from ftbench.worker.launch.watch import End, Watch
from ftbench.worker.process.lifeline import guard_group


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Run the `LaunchRequest`; return the answers of all ranks in one, or the failure of the first that failed."""
    request = LaunchRequest.model_validate(body)
    if Cell.model_validate(request.request["cell"]).settings.get("dataloader_num_workers"):
        guard_group()
    board = Board(request.processes)
    watch = Watch(board, emit)
    with _pipes(request.processes) as pipes:
        task = rank.Task(request, board, pipes, os.getpid(), threads_of(request.processes))
        watch.start()
        try:
            answers = elastic_launch(_config(request.processes), rank.main)(task)
        except ChildFailedError as error:
            watch.stop()
            return cause_of(_ends(watch.ends, error), _told(pipes))
        watch.stop()
    return merged_answer(request, [answers[number] for number in range(request.processes)])


def threads_of(processes: int) -> int:
    """Return the threads of each rank: as many as OMP_NUM_THREADS says, else an equal share of the processors.

    Of a list, one number per level of nested parallelism, the first counts; OpenMP ignores anything but positive
    numbers (OpenMP 5.2, 21.1.2).
    """
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    number = int(named) if named.isdecimal() else 0
    return number or max(1, len(os.sched_getaffinity(0)) // processes)


class _OwnLogs(LogsSpecs):
    """No files of torch's launcher: each rank has its log already."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Return that nothing is redirected."""
        none = dict.fromkeys(envs, "")
        return LogsDest(none, none, none, none, dict.fromkeys(envs, os.devnull))

    @property
    def root_log_dir(self) -> str:
        """Return the folder of logs, of which there is none."""
        return os.devnull


def _config(processes: int) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # any free port
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="fork",
        signals_to_handle="SIGTERM",
        logs_specs=_OwnLogs(),
    )


@contextlib.contextmanager
def _pipes(number: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Give one pipe per rank, as (reading end, writing end)."""
    pipes = tuple(os.pipe() for _ in range(number))
    try:
        yield pipes
    finally:
        for pipe in pipes:
            for end in pipe:
                os.close(end)


def _told(pipes: tuple[tuple[int, int], ...]) -> dict[int, Mapping[str, Any]]:
    """Return the failures that ranks have told of, by rank; all ranks have ended."""
    found = {}
    for number, (reading, _) in enumerate(pipes):
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            found[number] = json.loads(os.read(reading, rank.PIPE_BYTES))
    return found


def _ends(seen: list[End], error: ChildFailedError) -> list[End]:
    """Return the ends in order, with the exit codes that only torch's launcher knows."""
    known = {number: failure.exitcode for number, failure in error.failures.items()}
    found = [
        end if end.exit_code is not None else End(end.rank, known.get(end.rank)) for end in seen
    ]
    missed = [
        End(number, code) for number, code in known.items() if number not in {e.rank for e in seen}
    ]
    return found + missed
