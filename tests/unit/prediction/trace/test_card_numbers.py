"""Numbers of cards: 0 is the traced card wherever torch takes a number for a device."""

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.tracer import Target, trace

TARGET = Target(padding=False)
MADE = {
    "empty": lambda: torch.empty(3, device=0),
    "tensor": lambda: torch.tensor([1.0, 2.0, 3.0], device=0),
    "arange": lambda: torch.arange(3, device=0, dtype=torch.float32),
    "full": lambda: torch.full((3,), 1.0, device=0),
    "as_tensor": lambda: torch.as_tensor([1.0, 2.0, 3.0], device=0),
    "randn": lambda: torch.randn(3, device=0),
    "zeros_like": lambda: torch.zeros_like(torch.empty(3), device=0),
    "new_zeros": lambda: torch.empty(1).new_zeros(3, device=0),
    "to": lambda: torch.empty(3).to(0),
    "to, named": lambda: torch.empty(3).to(device=0),
    "cuda": lambda: torch.empty(3).cuda(0),
    "module": lambda: torch.nn.Linear(3, 1, bias=False, device=0).weight,
    "module, moved": lambda: torch.nn.Linear(3, 1, bias=False).to(0).weight,
    "module, moved by name": lambda: torch.nn.Linear(3, 1, bias=False).to(device=0).weight,
    "module, cuda": lambda: torch.nn.Linear(3, 1, bias=False).cuda(0).weight,
}


@pytest.mark.parametrize("way", MADE)
def test_a_number_names_the_card(way):
    def factory(device):
        made = MADE[way]()
        assert made.device == torch.device("cuda", 0)
        assert torch.cuda.memory_allocated() == 3 * 4
        return lambda: made + 1

    trace(factory, target=TARGET)


def test_the_host_stays_the_host():
    def factory(device):
        kept = [torch.empty(3), torch.empty(3, device="cpu"), torch.empty(3).to("cpu")]
        assert torch.cuda.memory_allocated() == 0
        return lambda: kept[0] + 1

    trace(factory, target=TARGET)


def test_a_rank_is_a_number_of_a_card():
    def factory(device):
        torch.distributed.init_process_group("nccl")
        rank = torch.distributed.get_rank()
        model = DistributedDataParallel(torch.nn.Linear(8, 4).to(rank), device_ids=[rank])
        return lambda: model(torch.ones(2, 8).to(rank)).sum().backward()

    traced = trace(factory, target=TARGET, ranks=Ranks(2))
    assert traced.communicators == 1
    assert traced.peak_bytes >= 3 * 4 * (8 * 4 + 4)  # weights, gradients and their bucket
    with pytest.raises(RuntimeError, match="accelerator"):
        torch.empty(1, device=0)  # after the trace, as before it


def test_transformers_before_maps_of_devices_is_traced_too(monkeypatch):
    from transformers import modeling_utils

    monkeypatch.delattr(modeling_utils, "_get_device_map")
    assert trace(lambda device: lambda: torch.ones(2, device=0), target=TARGET).peak_bytes > 0


def test_a_number_of_numpy_names_the_card():
    def factory(device):
        assert torch.empty(3).to(np.int64(0)).device == torch.empty(3, device=np.int64(0)).device
        return lambda: None

    trace(factory, target=TARGET)
