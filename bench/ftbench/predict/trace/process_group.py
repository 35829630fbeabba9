"""Process group: one rank of many in one process, in which nothing is communicated.

Collectives return at once and leave their tensors as they are; in a trace these have no data. What NCCL
allocates of torch's memory for a collective is allocated here, too. Code that asks for its rank, starts a process
group or makes a device mesh gets the answers of a process that `torchrun` started.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeProcessGroup, _create_work_from_future
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.futures import Future

from ftbench.base.errors import PredictionError
from ftbench.predict.trace.ranks import Ranks

_BACKEND = "ftbench"


class OneRank(dist.ProcessGroup):
    """A process group of which this process is the only one that runs.

    torch's own 'fake' backend has its name, and answers what is not here. It cannot take the place of all: the
    result of its work is empty, and the Reducer of DistributedDataParallel takes the tensors from there.
    """

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)
        backend = FakeProcessGroup._create_internal(rank, size, FakeProcessGroup.Options())
        for device in ("cpu", "cuda"):
            self._register_backend(torch.device(device), self.BackendType.CUSTOM, backend)

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        """Return the name under which torch knows it."""
        return _BACKEND

    def allreduce(self, tensors: Sequence[torch.Tensor], *_: Any, **__: Any) -> Any:
        """Sum in place."""
        return _done(tensors)

    allreduce_coalesced = broadcast = reduce = allreduce

    def barrier(self, *_: Any, **__: Any) -> Any:
        """Wait for nobody."""
        return _done([])

    def all_gather_single(self, output: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Gather equal parts into one tensor."""
        return _done([output])

    reduce_scatter_single = alltoall_base = all_gather_single

    def all_gather_single_coalesced(
        self, outputs: Sequence[torch.Tensor], *_: Any, **__: Any
    ) -> Any:
        """Gather several tensors."""
        return _done(outputs)

    reduce_scatter_single_coalesced = alltoall = all_gather_single_coalesced
    send = recv = all_gather_single_coalesced

    def allgather(self, outputs: Sequence[Sequence[torch.Tensor]], *_: Any, **__: Any) -> Any:
        """Gather into a list of tensors, through one flat tensor if all have one size.

        `ProcessGroupNCCL::allgather` calls `newLikeFlat` (ProcessGroupNCCL.cpp).
        """
        for of_one in outputs:
            _through_flat(of_one)
        return _done([one for of_one in outputs for one in of_one])

    def reduce_scatter(
        self,
        outputs: Sequence[torch.Tensor],
        inputs: Sequence[Sequence[torch.Tensor]],
        *_: Any,
        **__: Any,
    ) -> Any:
        """Reduce a list of tensors to one of them, through a flat tensor like `allgather`."""
        for of_one in inputs:
            _through_flat(of_one)
        return _done(outputs)

    def gather(self, outputs: Sequence[Sequence[torch.Tensor]], *_: Any, **__: Any) -> Any:
        """Gather on one rank."""
        return _done([one for of_one in outputs for one in of_one])

    def scatter(self, outputs: Sequence[torch.Tensor], *_: Any, **__: Any) -> Any:
        """Scatter from one rank."""
        return _done(outputs)


def _done(result: Sequence[torch.Tensor]) -> Any:
    future: Future[Any] = Future()
    future.set_result(list(result))
    return _create_work_from_future(future)


def _through_flat(tensors: Sequence[torch.Tensor]) -> None:
    if tensors and len({tensor.shape for tensor in tensors}) == 1:
        tensors[0].new_empty((len(tensors), *tensors[0].shape))


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
    with _environment(ranks):
        dist.init_process_group(
            _BACKEND, store=dist.HashStore(), rank=ranks.rank, world_size=ranks.size
        )
        try:
            yield
        finally:
            dist.destroy_process_group()


def mesh_of(ranks: Ranks, device_type: str) -> DeviceMesh:
    """Return the mesh of all ranks."""
    return init_device_mesh(device_type, ranks.shape, mesh_dim_names=ranks.names)


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
