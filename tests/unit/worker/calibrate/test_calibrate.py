"""The kernels that a calibration measures: their counts are a trace's, and their shapes small enough."""

import functools

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ftbench.prediction.trace.tracer import Target, trace
from ftbench.prediction.trace.work import WorkCounter
from ftbench.worker.calibrate import card, products
from ftbench.worker.calibrate.memory_kernels import elements_for, optimizer_of, update_timings
from ftbench.worker.calibrate.products import shapes_for
from ftbench.worker.calibrate.timing import OperatorCounter, seconds_per_call

CPU = torch.device("cpu")


def encoder(device):
    """A step with a table, a normalization, a softmax, a loss and AdamW."""
    model = nn.Sequential(
        nn.Embedding(50, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU(), nn.Softmax(-1)
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.zeros(4, 6, dtype=torch.int64, device=device)

    def step():
        model(ids).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_operators_that_run_are_counted_as_a_trace_counts_them():
    counter = WorkCounter()
    trace(encoder, steps=3, target=Target(device="cpu"), watch=counter.watch)
    traced = counter.work_of(3, documents=4, batches=1)
    step = encoder(CPU)
    for _ in range(2):
        step()
    with OperatorCounter(CPU) as ran:
        step()
    assert ran.kernels == traced.kernels
    assert ran.nbytes == traced.product_bytes + traced.other_bytes


def test_a_fused_update_on_a_card_has_as_many_kernels_as_a_trace_counts():
    """One kernel takes some tens of tensors only (MultiTensorApply.cuh)."""
    device = torch.device("cuda", 0)
    with FakeTensorMode():
        optimizer = optimizer_of([256] * 200, device, fused=True)
        with OperatorCounter(device) as ran:
            optimizer.step()

    def make_step(device):
        model = nn.ParameterList([nn.Parameter(torch.ones(256)) for _ in range(200)]).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)

        def step():
            torch.stack([one.sum() for one in model]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    counter = WorkCounter()
    trace(make_step, steps=3, target=Target(), watch=counter.watch)
    traced = counter.work_of(3, documents=4, batches=1).by_kernel.memory
    fused = [row for row in traced if row.kind == "lists"]
    assert ran.kernels == sum(row.kernels for row in fused) > 1


def test_an_update_is_counted_without_the_hosts_numbers():
    with OperatorCounter(torch.device("cuda")) as ran:
        optimizer_of([16], CPU, fused=False).step()
    assert ran.kernels == 0


@pytest.mark.parametrize(
    ("kind", "quick", "number"), [("cpu", False, 90), ("cuda", False, 160), ("cpu", True, 30)]
)
def test_shapes_are_the_same_every_time_and_small_enough(kind, quick, number):
    shapes = shapes_for(kind, quick=quick)
    assert shapes == shapes_for(kind, quick=quick)
    assert len(set(shapes)) == len(shapes) == number
    most = {"cpu": 2e10, "cuda": 2e13}[kind]
    assert max(2 * b * m * n * k for b, m, n, k in shapes) <= most
    assert {b > 1 for b, *_ in shapes} == {True, False}


@pytest.mark.parametrize(
    ("free", "largest"), [(None, 4**14), (15 * 2**30, 4**14), (8 * 2**30, 4**13), (2**30, 4**12)]
)
def test_on_a_small_card_the_largest_tensors_are_left_out(free, largest):
    sizes = elements_for("cuda", free, quick=False)
    assert sizes == [4**n for n in range(4, 15) if 4**n <= largest]
    assert set(elements_for("cuda", free, quick=True)) <= set(sizes)
    assert max(elements_for("cpu", None, quick=False)) == 4**12


def test_attention_that_does_not_fit_is_left_out(monkeypatch):
    def timed(call, _device):
        if isinstance(call, functools.partial) and call.args[0].shape[2] > 512:
            raise torch.OutOfMemoryError
        return 1e-3

    monkeypatch.setattr(products, "seconds_per_call", timed)
    found = list(products.attention_timings(CPU))
    assert {row.length for row in found} == {128, 512}
    assert len(found) == 2 * len([row for row in found if row.backward]) > 0


def test_without_a_network_or_memory_for_it_nccl_is_not_known(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(card, "_beside_allocator", lambda _: 5)
    monkeypatch.setattr(card, "_beside_communicator", lambda _: 12)
    assert card.nccl_bytes(CPU) == 7

    def fails(_device):
        raise torch.distributed.DistBackendError("no socket interface found")

    monkeypatch.setattr(card, "_beside_communicator", fails)
    assert card.nccl_bytes(CPU) is None


def test_a_call_that_takes_longer_is_slower():
    small, large = (torch.ones(size) for size in (16, 4_000_000))
    quick, slow = (seconds_per_call(lambda x=x: x + 1, CPU) for x in (small, large))
    assert slow > 10 * quick  # a quarter of a million times the work


def test_an_update_of_more_elements_moves_more():
    few, many = (list(update_timings(elements, CPU)) for elements in (256, 65_536))
    assert [row.kind for row in few] == ["lists", "elementwise"]
    assert all(row.update for row in few)
    assert all(large.nbytes > 100 * small.nbytes for small, large in zip(few, many, strict=True))
