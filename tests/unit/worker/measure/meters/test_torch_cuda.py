"""The CUDA meter against an allocator that replays a planted sequence."""

import pytest

from ftbench.worker.measure.meters.torch_cuda import NoCuda, TorchCudaMemory
from ftbench.worker.measure.phases import PhaseBook


class FakeAllocator:
    """Counts as torch's caching allocator does: reserved never falls, peaks are reset together."""

    def __init__(self):
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = 0
        self.retries = 0

    def use(self, change):
        self.allocated += change
        self.reserved = max(self.reserved, self.allocated)
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def reset_peak_memory_stats(self):
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def memory_allocated(self):
        return self.allocated

    def memory_reserved(self):
        return self.reserved

    def max_memory_allocated(self):
        return self.peak_allocated

    def max_memory_reserved(self):
        return self.peak_reserved

    def memory_stats(self):
        return {"num_alloc_retries": self.retries}


def test_each_phase_has_its_own_peaks():
    allocator = FakeAllocator()
    book = PhaseBook([TorchCudaMemory(allocator)])
    sequence = {
        "load": [100],
        "first_steps": [300, -300, 50],
        "train": [350, -350],
        "evaluation": [90, -90],
    }
    for name, changes in sequence.items():
        book.enter(name)
        for change in changes:
            allocator.use(change)
    book.enter(None)
    peaks = {
        n: (p.memory.peak_allocated_bytes, p.memory.peak_reserved_bytes)
        for n, p in book.phases().items()
    }
    assert peaks == {
        "load": (100, 100),
        "first_steps": (400, 400),
        "train": (500, 500),
        "evaluation": (240, 500),
    }
    assert book.peaks().peak_allocated_bytes == 500


def test_retries_tell_that_the_peak_was_clipped():
    allocator = FakeAllocator()
    assert TorchCudaMemory(allocator).retries() == 0
    allocator.retries = 3
    assert TorchCudaMemory(allocator).retries() == 3


def test_on_the_cpu_each_figure_is_absent_with_its_reason():
    meter = NoCuda()
    meter.start("train")
    assert meter.read() == {}
    assert set(meter.absent()) == set(NoCuda.FIELDS)


@pytest.mark.gpu
def test_a_planted_tensor_is_seen_to_the_block():
    import torch

    meter = TorchCudaMemory(torch.cuda)
    meter.start("train")
    before = meter.read()["peak_allocated_bytes"]
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    assert meter.read()["peak_allocated_bytes"] - before == block.numel()
