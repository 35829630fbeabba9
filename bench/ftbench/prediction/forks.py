"""Forks: the same work for many jobs, in this process or in several that are forked from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

import torch

from ftbench.prediction.shapes.shapes import Map


def runner(stack: ExitStack, processes: int) -> Map:
    """Return a function that runs jobs in this process, or in processes forked from it, which has torch loaded."""
    if processes <= 1:
        return lambda function, jobs: [function(job) for job in jobs]
    # OpenMP's threads do not survive a fork: after a large mask in this process, another's would wait for ever.
    pool = stack.enter_context(
        ProcessPoolExecutor(
            processes, get_context("fork"), initializer=torch.set_num_threads, initargs=(1,)
        )
    )

    def run(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        # The function is pickled once per chunk, and may contain a workload's traces.
        chunk = max(1, len(jobs) // (8 * processes))
        return list(pool.map(function, jobs, chunksize=chunk))

    return run
