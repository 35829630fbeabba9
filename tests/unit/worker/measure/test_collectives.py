import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ftbench.worker.measure.collectives import collectives_of, time_every_step


@pytest.fixture
def model():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    made = DistributedDataParallel(torch.nn.Linear(8, 8))
    yield made
    # The Reducer must not be the last to let go of the group: its end would hold Python's lock while it waits for
    # gloo's thread, which may be waiting for that lock.
    del made.reducer, made.logger
    dist.destroy_process_group()


def test_without_ddp_nothing_is_known():
    assert collectives_of(None) is None
    assert collectives_of(torch.nn.Linear(2, 2)) is None


def test_before_a_step_nothing_is_known(model):
    assert collectives_of(model) is None


def test_the_wait_is_a_part_of_the_whole(model):
    time_every_step(model)
    for _ in range(3):
        model(torch.ones(2, 8)).sum().backward()
    found = collectives_of(model)
    assert found.seconds > 0
    assert 0 <= found.exposed_s <= found.seconds


@pytest.mark.parametrize(("whole", "beside", "exposed"), [(5e8, 2e8, 0.3), (5e8, 6e8, 0.0)])
def test_times_are_seconds(model, monkeypatch, whole, beside, exposed):
    times = {
        "avg_backward_comm_time": int(whole),
        "avg_backward_compute_comm_overlap_time": int(beside),
    }
    monkeypatch.setattr(DistributedDataParallel, "_get_ddp_logging_data", lambda self: times)
    found = collectives_of(model)
    assert (found.seconds, found.exposed_s) == pytest.approx((0.5, exposed))


def test_every_step_is_timed_on_the_cpu_only(model, monkeypatch):
    rates = []
    monkeypatch.setattr(
        DistributedDataParallel,
        "_set_ddp_runtime_logging_sample_rate",
        lambda self, rate: rates.append(rate),
    )
    time_every_step(model)
    model.device_type = "cuda"
    time_every_step(model)
    assert rates == [1]
