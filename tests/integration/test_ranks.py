"""A trace of one rank against a rank that really runs: CPU tensors with data, which torch's profiler watches.

The process that really runs is alone, too. Its process group is torch's own 'fake' one; collectives do nothing
there, and the tensors are what they are in a run of all ranks. DistributedDataParallel does not work with it unless
it has a communication hook; without one it is compared with two processes (test_two_processes.py).
"""

import functools
import math

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import BackwardPrefetch, MixedPrecision, ShardingStrategy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.testing._internal.distributed.fake_pg import FakeStore

from ftbench.prediction.shapes.fit import fit_events
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import Target, trace
from tests.cpu_peak import peak_of_steps
from tests.integration.conftest import some_long
from tests.sharded import (
    BFLOAT16,
    Run,
    flat,
    fully_sharded,
    replicated,
    sharded_in_loading,
    tensor_parallel,
)

pytestmark = pytest.mark.integration

STEPS = 3
SIZES = [8, pytest.param(2, marks=pytest.mark.long)]
ON_CPU = Target(device="cpu", padding=False)

RUNS = {
    "plain": Run(),
    "not resharded": Run(fsdp={"reshard_after_forward": False}),
    "always resharded": Run(fsdp={"reshard_after_forward": True}),
    "bfloat16": Run(fsdp={"mp_policy": BFLOAT16}),
    "bfloat16, not resharded": Run(fsdp={"mp_policy": BFLOAT16, "reshard_after_forward": False}),
    "checkpointing": Run(checkpointing=True, batch=4),
    "checkpointing, bfloat16": Run(checkpointing=True, batch=4, fsdp={"mp_policy": BFLOAT16}),
    "accumulation": Run(accumulation=2),
    "accumulation, synchronized": Run(accumulation=2, synchronized=True),
    "accumulation, bfloat16": Run(accumulation=2, fsdp={"mp_policy": BFLOAT16}),
    "clipping": Run(clip=1.0),
    "foreach": Run(options={"foreach": True}),
    "prefetch": Run(prefetch=1, layers=3),
    "SGD": Run(optimizer=torch.optim.SGD, options={"momentum": 0.9}),
    "large batch": Run(batch=8, length=96),
    "even shards": Run(hidden=256),
    "built on the device": Run(on_meta=False),
}
NAMES = ("replicate", "shard")
DDP = {
    "small buckets": {"bucket_cap_mb": 0.1},
    "views": {"bucket_cap_mb": 0.1, "gradient_as_bucket_view": True},
    "static graph": {"bucket_cap_mb": 0.1, "static_graph": True},
    "unused parameters": {"find_unused_parameters": True},
}


def _unchanged(_, bucket):  # without annotations, which torch compares with its own as objects
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("size", SIZES)
def test_fully_shard_is_exact(name, size):
    assert_exact(fully_sharded(RUNS[name]), Ranks(size))


def test_the_last_rank_has_smaller_shards():
    factory = fully_sharded(Run())
    last, first = Ranks(8, rank=7), Ranks(8)
    assert assert_exact(factory, last) < assert_exact(factory, first)


@pytest.mark.parametrize("size", [8])
def test_resharding_to_a_part_of_the_ranks_is_exact(size):
    assert_exact(fully_sharded(Run(fsdp={"reshard_after_forward": 2}, on_meta=False)), Ranks(size))


def test_replicated_groups_of_shards_are_exact():
    ranks = Ranks(8, mesh=(2, 4), names=NAMES)
    for run in (Run(), Run(accumulation=2), Run(fsdp={"mp_policy": BFLOAT16})):
        assert_exact(fully_sharded(run), ranks)


def test_tensor_parallel_is_exact():
    assert_exact(tensor_parallel(Run(batch=4, hidden=200)), Ranks(2))


def test_tensor_parallel_of_shards_is_exact():
    ranks = Ranks(4, mesh=(2, 2), names=("data", "tensor"))
    assert_exact(tensor_parallel(Run(batch=4, hidden=200, on_meta=False), and_fsdp=True), ranks)


@pytest.mark.parametrize(
    "shape", [{"tp_size": 2}, {"fsdp_size": 2}, {"tp_size": 2, "fsdp_size": 2}], ids=str
)
def test_a_model_that_transformers_shards_in_loading_is_exact(shape):
    factory = sharded_in_loading(Run(batch=4, hidden=200, options={"foreach": False}), **shape)
    ranks = Ranks(math.prod(shape.values()))
    traced = trace(factory, steps=STEPS, target=ON_CPU, ranks=ranks).peak_bytes
    # The mesh that transformers makes keeps the numbers of its ranks, on the host.
    assert peak_of_rank(factory, ranks) - traced == 8 * ranks.size


@pytest.mark.parametrize("name", DDP)
@pytest.mark.parametrize("size", SIZES)
def test_data_parallel_is_exact(name, size):
    assert_exact(replicated(Run(), _unchanged, **DDP[name]), Ranks(size))


@pytest.mark.parametrize(
    "run", [Run(accumulation=2), Run(checkpointing=True, batch=4)], ids=["no sync", "checkpointing"]
)
def test_data_parallel_steps_are_exact(run):
    assert_exact(replicated(run, _unchanged, static_graph=run.checkpointing), Ranks(2))


FLAT = {
    "plain": {},
    "own parameters": {"use_orig_params": True},
    "bfloat16": {"mixed_precision": MixedPrecision(*[torch.bfloat16] * 3)},
    "gradients and states": {"sharding_strategy": ShardingStrategy.SHARD_GRAD_OP},
    "not prefetched": {"backward_prefetch": None},
    "after the backward": {"backward_prefetch": BackwardPrefetch.BACKWARD_POST},
    "all at once": {"limit_all_gathers": False},
}


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("size", SIZES)
def test_flat_parameters_are_exact(name, size):
    assert_exact(flat(Run(), **FLAT[name]), Ranks(size, rank=size - 1))


@pytest.mark.parametrize(
    "run",
    [Run(checkpointing=True, batch=4), Run(accumulation=2), Run(clip=1.0)],
    ids=["checkpointing", "accumulation", "clipping"],
)
def test_steps_of_flat_parameters_are_exact(run):
    assert_exact(flat(run, use_orig_params=True), Ranks(8))


@pytest.mark.parametrize("options", [{}, {"parameters_as_bucket_view": True}])
@pytest.mark.parametrize("rank", [0, 3])
def test_sharded_optimizer_states_are_exact(options, rank):
    sharded = functools.partial(
        ZeroRedundancyOptimizer, optimizer_class=torch.optim.AdamW, **options
    )
    assert_exact(replicated(Run(optimizer=sharded), _unchanged), Ranks(4, rank=rank))


SHAPES = [(2, 32), (4, 40), (3, 64), (3, 96), (5, 72), (2, 56)]
SHARDINGS = {
    "fully sharded": fully_sharded,
    "replicated": replicated,
    "flat": flat,
}


@pytest.mark.parametrize("sharding", some_long(SHARDINGS, 3))
def test_a_fit_gives_a_rank_at_other_shapes(sharding):
    def at(batch, length):
        run = Run(batch=batch, length=length, checkpointing=True)
        return trace(SHARDINGS[sharding](run), ranks=Ranks(8))

    fitted = fit_events({shape: at(*shape) for shape in SHAPES})
    for shape in ((7, 160), (16, 48)):
        direct = at(*shape)
        assert fitted.at(*shape).same_events(direct)
        assert fitted.peak_bytes(*shape) - direct.peak_bytes == 0


def assert_exact(factory, ranks):
    """Compare a rank's trace with its run, and return the peak."""
    traced = trace(factory, steps=STEPS, target=ON_CPU, ranks=ranks).peak_bytes
    assert traced - peak_of_rank(factory, ranks) == 0
    return traced


def peak_of_rank(factory, ranks):
    """Return the most bytes of tensors that a rank really holds on the CPU."""
    dist.init_process_group("fake", store=FakeStore(), rank=ranks.rank, world_size=ranks.size)
    # Products in bfloat16 take a workspace of oneDNN's, which no operator shows.
    with torch.backends.mkldnn.flags(enabled=False):
        try:
            mesh = init_device_mesh("cpu", ranks.shape, mesh_dim_names=ranks.names)
            return peak_of_steps(factory, mesh, STEPS)
        finally:
            dist.destroy_process_group()
