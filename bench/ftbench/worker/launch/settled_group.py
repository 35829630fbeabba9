"""Settled group: gloo's process group, of which no memory is left when a collective returns.

torch's profiler sees only what its own thread frees. A thread of gloo's holds the tensors of a collective until a
moment after its end, and whichever thread lets go last frees them. Here gloo has one thread, and each collective is
followed by a small one: when that has ended, the thread has let go of the one before it
(`ProcessGroupGloo::runLoop`). A barrier will not do, since it keeps weak references to what is in progress. For the
two-step pass, which measures memory only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _create_work_from_future  # type: ignore[attr-defined]
from torch.futures import Future

_BACKEND = "ftbench_settled"


class SettledGroup(dist.ProcessGroup):
    """A group that hands each collective to gloo, and returns when its memory is back."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_default_device()]
        options._threads = 1
        options._timeout = timeout
        self._gloo: Any = dist.ProcessGroupGloo(store, rank, size, options)
        self._flag = torch.zeros(1)  # never freed, so it does not matter who lets go of it
        self._register_backend(torch.device("cpu"), self.BackendType.CUSTOM, self._gloo)

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        """Return the name under which torch knows it."""
        return _BACKEND

    def _settled(self, work: Any, result: Iterable[torch.Tensor]) -> Any:
        """Wait for a collective and for gloo's thread, and return the work of one that has ended."""
        work.wait()
        self._gloo.allreduce([self._flag], dist.AllreduceOptions()).wait()
        future: Future[Any] = Future()
        future.set_result(list(result))
        return _create_work_from_future(future)

    # Annotated, since torch gives each of these several signatures.

    def _allreduce(self, tensors: Sequence[torch.Tensor], *options: Any) -> Any:
        return self._settled(self._gloo.allreduce(tensors, *options), tensors)

    def _broadcast(self, tensors: Sequence[torch.Tensor], *options: Any) -> Any:
        return self._settled(self._gloo.broadcast(tensors, *options), tensors)

    def _gather(self, outputs: Any, inputs: Any, *options: Any) -> Any:
        work = self._gloo.allgather(outputs, inputs, *options)
        return self._settled(work, itertools.chain(*outputs))

    def _gather_in_one(self, output: torch.Tensor, tensor: torch.Tensor, *options: Any) -> Any:
        return self._settled(self._gloo._allgather_base(output, tensor, *options), [output])

    def _wait_for_all(self, *options: Any) -> Any:
        return self._settled(self._gloo.barrier(*options), [])

    allreduce: Any = _allreduce
    broadcast: Any = _broadcast
    allgather: Any = _gather
    all_gather_single: Any = _gather_in_one
    barrier: Any = _wait_for_all


def join_settled_group() -> None:
    """Join the ranks that the environment names, before accelerate would do so with gloo."""
    dist.Backend.register_backend(_BACKEND, SettledGroup, devices=["cpu"])
    dist.init_process_group(_BACKEND)
