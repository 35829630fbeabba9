"""Process group: one rank of many in one process, in which nothing is communicated.

Collectives return at once and leave their tensors as they are; in a trace these have no data. What NCCL
allocates of torch's memory for a collective is allocated here, too. Code that asks for its rank, starts a process
group or makes a device mesh gets the answers of a process that `torchrun` started.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import (  # type: ignore[attr-defined]
    FakeProcessGroup,
    HashStore,
    _create_work_from_future,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.futures import Future

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.ranks import Ranks

_BACKEND = "ftbench"


class OneRank(dist.ProcessGroup):
    """A process group of which this process is the only one that runs.

    torch's own 'fake' backend has its name, and answers what is not here. It cannot take the place of all: the
    result of its work is empty, and the Reducer of DistributedDataParallel takes the tensors from there.
    """

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        self.has_communicated = False
        options = FakeProcessGroup.Options()  # type: ignore[call-arg]
        backend = FakeProcessGroup._create_internal(rank, size, options)  # type: ignore[call-arg]
        for device in ("cpu", "cuda"):
            self._register_backend(torch.device(device), self.BackendType.CUSTOM, backend)

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        """Return the name under which torch knows it."""
        return _BACKEND

    def _done(self, result: Iterable[torch.Tensor]) -> Any:
        """Return the work of a collective that has ended, with its tensors."""
        self.has_communicated = self.size() > 1
        future: Future[Any] = Future()
        future.set_result(list(result))
        return _create_work_from_future(future)

    # Annotated, since torch gives each of these several signatures.
    allreduce: Any = lambda self, tensors, *_, **__: self._done(tensors)
    allreduce_coalesced = broadcast = reduce = send = recv = allreduce
    alltoall = scatter = all_gather_single_coalesced = reduce_scatter_single_coalesced = allreduce
    all_gather_single: Any = lambda self, output, *_, **__: self._done([output])
    reduce_scatter_single = alltoall_base = all_gather_single
    barrier: Any = lambda self, *_, **__: self._done([])
    gather: Any = lambda self, outputs, *_, **__: self._done(itertools.chain(*outputs))

    # `ProcessGroupNCCL` passes lists through one flat tensor (`newLikeFlat`, ProcessGroupNCCL.cpp).

    def _allgather(self, outputs: Sequence[Sequence[torch.Tensor]], *_: Any, **__: Any) -> Any:
        for of_one in outputs:
            _through_flat(of_one)
        return self._done(itertools.chain(*outputs))

    def _reduce_scatter(
        self, outputs: Any, inputs: Sequence[Sequence[torch.Tensor]], *_: Any, **__: Any
    ) -> Any:
        for of_one in inputs:
            _through_flat(of_one)
        return self._done(outputs)

    allgather: Any = _allgather
    reduce_scatter: Any = _reduce_scatter


def _through_flat(tensors: Sequence[torch.Tensor]) -> None:
    """Allocate a flat tensor, and free it, for tensors of one size on a card."""
    on_card = bool(tensors) and tensors[0].is_cuda
    if on_card and len({tensor.shape for tensor in tensors}) == 1:
        tensors[0].new_empty((len(tensors), *tensors[0].shape))


def communicators(names: Iterable[str]) -> int:
    """Return the number of groups that have communicated, among them those whose names are given."""
    groups = dist.distributed_c10d._world.pg_names
    used = (name for group, name in groups.items() if getattr(group, "has_communicated", False))
    return len({*used, *names})


@contextlib.contextmanager
def process_group(ranks: Ranks) -> Iterator[None]:
    """Be one rank of a process group; raises PredictionError if this process is in one already."""
    if dist.is_initialized():
        raise PredictionError(
            "this process is in a process group",
            got=f"rank {dist.get_rank()} of {dist.get_world_size()}",
            hint="several ranks are traced in a process of their own: call destroy_process_group() first",
        )
    if not hasattr(dist.Backend, _BACKEND.upper()):
        dist.Backend.register_backend(
            _BACKEND,
            lambda store, rank, size, timeout: OneRank(rank, size),
            devices=["cpu", "cuda"],
        )
    with _environment(ranks), _hook_of_errors_kept():
        dist.init_process_group(_BACKEND, store=HashStore(), rank=ranks.rank, world_size=ranks.size)
        try:
            yield
        finally:
            dist.destroy_process_group()


def mesh_of(ranks: Ranks, device_type: str) -> DeviceMesh:
    """Return the mesh of all ranks."""
    return init_device_mesh(device_type, ranks.shape, mesh_dim_names=ranks.names)


@contextlib.contextmanager
def _hook_of_errors_kept() -> Iterator[None]:
    """Restore `sys.excepthook`: a process group puts its rank in front of each line that it prints, for ever."""
    before = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = before


@contextlib.contextmanager
def _environment(ranks: Ranks) -> Iterator[None]:
    """Set the variables that `torchrun` sets; each rank sees one card, its own."""
    named = {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
