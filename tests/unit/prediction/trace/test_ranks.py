"""One rank of many: the arithmetic of shards, and code as users of torch.distributed write it."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.target import Target
from ftbench.prediction.trace.tracer import trace
from tests.cpu_peak import peak_of_steps
from tests.sharded import Run, flat, fully_sharded, llama, replicated, tensor_parallel, training

ADAM_STATES = 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 2, "rank": 2},
        {"size": 2, "rank": -1},
        {"size": 8, "mesh": (2, 3)},
        {"size": 8, "mesh": (-2, -4)},
        {"size": 8, "mesh": (2, 4), "names": ("shard",)},
    ],
)
def test_ranks_that_cannot_be_are_refused(wrong):
    with pytest.raises(PredictionError):
        Ranks(**wrong)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("rank", [0, -1])
def test_shards_have_their_part_of_the_rows(size, rank):
    run, ranks = Run(), Ranks(size, rank=rank % size)
    traced = trace(fully_sharded(run), steps=2, ranks=ranks)
    roles = traced.traced_roles
    sizes = dict(zip(traced.block[traced.kind == 1], traced.nbytes[traced.kind == 1], strict=True))
    states = sum(int(sizes[block]) for block, role in roles.items() if role == "optimizer state")
    with torch.device("meta"):
        shapes = [parameter.shape for parameter in llama(run).parameters()]
    shards = [rows_of(shape[0], size, ranks.rank) * shape[1:].numel() for shape in shapes]
    assert states == ADAM_STATES * 4 * sum(shards)


def rows_of(rows, size, rank):
    """Return how many rows `torch.chunk` leaves for a rank."""
    whole = -(-rows // size)
    return max(0, min(whole, rows - rank * whole))


def script(device):
    """Return a step of a training script that `torchrun` starts."""
    dist.init_process_group("nccl")
    local = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(local)
    assert (dist.get_rank(), dist.get_world_size()) == (3, 8)
    model = DistributedDataParallel(llama(Run()).to(f"cuda:{local}"), device_ids=[local])
    optimizer = torch.optim.AdamW(model.parameters())

    def step():
        ids = torch.zeros(2, 64, dtype=torch.long).to(local, non_blocking=True)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach().clone()
        dist.all_reduce(mean, op=dist.ReduceOp.AVG)
        dist.barrier()
        return mean.item()

    return step


def test_a_script_for_torchrun_is_traced_as_it_is():
    hook = sys.excepthook
    traced = trace(script, ranks=Ranks(8, rank=3))
    alone = trace(lambda device: training(llama(Run()).to(device), device, Run()))
    parameters = sum(parameter.numel() for parameter in llama(Run()).parameters())
    # The buckets are one more copy of the gradients, of which the peak of one GPU has one.
    assert traced.peak_bytes - alone.peak_bytes == pytest.approx(4 * parameters, rel=0.01)
    assert not dist.is_initialized()
    assert "RANK" not in os.environ
    assert sys.excepthook is hook


def test_a_factory_may_make_its_own_mesh():
    def factory(device, mesh=None):
        mesh = mesh or init_device_mesh("cuda", (2, 4), mesh_dim_names=("replicate", "shard"))
        return sharded(device, mesh=mesh)

    given = trace(factory, ranks=Ranks(8, mesh=(2, 4), names=("replicate", "shard")))
    own = trace(lambda device: factory(device), ranks=Ranks(8))
    assert own.same_events(given)
    assert own.peak_bytes == given.peak_bytes


def test_a_model_on_the_host_is_sharded_onto_the_card():
    peaks = [
        trace(one, ranks=Ranks(8)).peak_bytes
        for one in (lambda device: sharded(device), fully_sharded(Run()))
    ]
    assert peaks[0] == peaks[1]


def sharded(device, **where):
    """Return a step of a model that is built on the host, and sharded over all ranks."""
    model = llama(Run())
    for block in model.model.layers:
        fully_shard(block, **where)
    fully_shard(model, **where)
    return training(model, device, Run())


def test_collectives_on_the_card_have_streams_of_their_own():
    traced = trace(fully_sharded(Run()), ranks=Ranks(8))
    assert set(traced.streams) == {0, 1, 3}  # computing, gathering, reducing


def test_objects_come_from_this_rank():
    def factory(device):
        gathered, sent = [None] * 4, ["own"]
        dist.all_gather_object(gathered, "own")
        dist.broadcast_object_list(sent)
        assert gathered == ["own"] * 4
        assert sent == ["own"]
        return lambda: torch.ones(1, device=device)

    trace(factory, steps=1, ranks=Ranks(4))


def test_gathering_into_a_list_takes_a_flat_tensor():
    def factory(device):
        def step():
            parts = [torch.empty(256, device=device) for _ in range(4)]
            dist.all_gather(parts, parts[0].clone())
            return

        return step

    assert trace(factory, steps=1, ranks=Ranks(4)).peak_bytes == (4 + 1 + 4) * 256 * 4


def test_offloading_to_the_host_is_refused():
    def factory(device, mesh):
        return sharded(device, mesh=mesh, offload_policy=CPUOffloadPolicy())

    with pytest.raises(PredictionError, match="offload"):
        trace(factory, ranks=Ranks(2))


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("set_allocate_memory_from_process_group_for_comm", True),
        ("set_symm_mem_for_comm", "NCCL"),
    ],
)
def test_communication_from_other_memory_is_refused(method, argument):
    def factory(device, mesh):
        model = fully_shard(torch.nn.Linear(8, 8, device=device), mesh=mesh)
        getattr(model, method)(argument)

    with pytest.raises(PredictionError, match=method):
        trace(factory, ranks=Ranks(2))


def test_symmetric_memory_is_refused():
    from torch.distributed import _symmetric_memory

    def factory(device):
        _symmetric_memory.empty(8, device=device)

    with pytest.raises(PredictionError, match="empty"):
        trace(factory, ranks=Ranks(2))


def test_a_process_that_is_a_rank_already_is_refused():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(PredictionError, match="process group"):
            trace(fully_sharded(Run()), ranks=Ranks(2))
    finally:
        dist.destroy_process_group()


def test_one_gpu_imports_nothing_of_sharding():
    code = """
import sys, torch
from ftbench.prediction.trace.target import Target
from ftbench.prediction.trace.tracer import trace
from tests.cpu_peak import peak_of_steps
trace(lambda device: lambda: torch.ones(1, device=device), steps=1)
assert not {f"ftbench.prediction.trace.{name}" for name in ("sharding", "process_group")} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("factory", "ranks", "number"),
    [
        (fully_sharded(Run()), Ranks(8), 1),
        (fully_sharded(Run()), Ranks(8, mesh=(2, 4), names=("replicate", "shard")), 2),
        (replicated(Run()), Ranks(8), 1),
        (tensor_parallel(Run(hidden=200, options={"foreach": False})), Ranks(2), 1),
        (fully_sharded(Run()), Ranks(1), 0),
    ],
    ids=["sharded", "replicated shards", "replicated", "tensor parallel", "one rank"],
)
def test_groups_that_communicate_are_counted(factory, ranks, number):
    assert trace(factory, ranks=ranks).communicators == number


@pytest.mark.parametrize(
    ("factory", "operators", "unit"),
    [
        (
            fully_sharded(Run()),
            {"all-gather", "unsharded parameters", "reduce-scatter"},
            "model.layers.0",
        ),
        (flat(Run()), {"all-gather", "reduce-scatter"}, None),
        (replicated(Run()), {"gradient buckets"}, None),
    ],
    ids=["sharded", "flat", "replicated"],
)
def test_what_sharding_allocates_has_a_name_and_a_unit(factory, operators, unit):
    sites = trace(factory, ranks=Ranks(8)).sites
    assert operators <= {site.operator for site in sites}
    assert unit is None or operators <= {site.operator for site in sites if site.module == unit}


def test_shapes_that_dtensor_works_out_are_no_memory():
    """It does so once per shape, on tensors of the whole size; a second trace finds them in its cache."""
    unseen, ranks = fully_sharded(Run(hidden=211, clip=1.0)), Ranks(5)
    first, second = trace(unseen, ranks=ranks), trace(unseen, ranks=ranks)
    assert first.same_events(second)
    assert first.nbytes.tolist() == second.nbytes.tolist()


def test_a_tensor_that_is_moved_to_the_first_cpu_is_copied_each_time():
    """accelerate calls the CPU of several processes so; a tensor there says that it is on `cpu`."""

    def factory(device):
        def step():
            first = torch.ones(100, device="cpu")
            second = first.to("cpu:0")
            third = second.to(device="cpu:0")
            made = torch.ones(100, device="cpu:0")
            assert {tensor.device for tensor in (first, second, third, made)} == {
                torch.device("cpu")
            }
            return first, second, third, made

        return step

    traced = trace(factory, steps=1, target=Target(device="cpu"))
    assert traced.peak_bytes == peak_of_steps(factory, None, 1) == 4 * 400
