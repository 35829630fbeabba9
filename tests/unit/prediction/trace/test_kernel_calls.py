"""Kernel calls: the shapes, kinds and places of operators, and calls at other batch sizes and depths."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.kernel_calls import calls_at_batch, calls_at_depth, kernel_work
from ftbench.prediction.trace.tracer import trace
from ftbench.prediction.trace.work import WorkCounter
from ftbench.records.kernel_work import Product

HEADS, LENGTH, WIDTH = 2, 48, 16


def calls(factory):
    counter = WorkCounter()
    trace(factory, steps=2, watch=counter.watch)
    return counter.calls_of(2)


def work(factory):
    counter = WorkCounter()
    trace(factory, steps=2, watch=counter.watch)
    return counter.work_of(2, documents=1, batches=1)


def stack(batch=3, layers=1, *, causal=False, dtype=torch.float32):
    """A step of layers with attention, and Adam."""

    def factory(device):
        linears = nn.ModuleList(nn.Linear(HEADS * WIDTH, HEADS * WIDTH) for _ in range(layers)).to(
            device, dtype
        )
        optimizer = torch.optim.AdamW(linears.parameters(), foreach=True)

        def step():
            x = torch.zeros(batch, LENGTH, HEADS * WIDTH, device=device, dtype=dtype)
            for linear in linears:
                split = linear(x).view(batch, LENGTH, HEADS, WIDTH).transpose(1, 2)
                mixed = functional.scaled_dot_product_attention(
                    split, split, split, is_causal=causal
                )
                x = functional.layer_norm(mixed.transpose(1, 2).reshape(x.shape), x.shape[-1:])
            x.sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return factory


def test_products_have_their_shapes():
    hidden, rows = HEADS * WIDTH, 3 * LENGTH
    of_layer = {"dtype": "float32", "batch": 1}
    assert set(work(stack()).by_kernel.products) == {
        Product(m=rows, n=hidden, k=hidden, **of_layer),
        Product(m=hidden, n=hidden, k=rows, **of_layer),
    }


def test_batched_products_have_a_batch():
    def factory(device):
        one = torch.ones(5, 7, 11, device=device, dtype=torch.float16)
        return lambda: one @ one.transpose(1, 2)

    (found,) = work(factory).by_kernel.products
    assert found == Product(batch=5, m=7, n=7, k=11, dtype="float16")


def test_a_convolution_is_a_product():
    def factory(device):
        layer = nn.Conv2d(3, 8, 4, stride=4).to(device)

        def step():
            layer(torch.ones(2, 3, 16, 16, device=device)).sum().backward()
            layer.zero_grad()

        return step

    forward, of_weight = work(factory).by_kernel.products
    assert (forward.m, forward.n, forward.k) == (2 * 4 * 4, 8, 3 * 4 * 4)
    assert (of_weight.m, of_weight.n, of_weight.k) == (8, 3 * 4 * 4, 2 * 4 * 4)
    assert not forward.flops_only


def test_a_convolution_has_products_for_both_gradients():
    def factory(device):
        layers = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 5, 2)).to(device)

        def step():
            layers(torch.ones(2, 3, 16, 16, device=device)).sum().backward()
            layers.zero_grad()

        return step

    found = {(row.m, row.n, row.k) for row in work(factory).by_kernel.products}
    places, depth = 2 * 3 * 3, 8 * 2 * 2
    assert {(places, 5, depth), (places, depth, 5), (5, depth, places)} <= found


@pytest.mark.parametrize("causal", [True, False])
def test_attention_says_whether_it_is_causal(causal):
    found = work(stack(causal=causal, dtype=torch.float16)).by_kernel
    assert {(call.causal, call.backward) for call in found.attention} == {
        (causal, False),
        (causal, True),
    }
    assert found.attention_length == LENGTH
    forward = next(call for call in found.attention if not call.backward)
    assert forward.call_flops == 4 * 3 * HEADS * LENGTH * LENGTH * WIDTH
    assert forward.flops == forward.call_flops * (0.5 if causal else 1)


def test_the_update_is_apart_and_knows_its_tensors():
    found = work(stack(layers=5)).by_kernel
    update = [row for row in found.memory if row.update]
    lists = next(row for row in update if row.kind == "lists" and row.dtype == "float32")
    assert lists.tensors > lists.kernels >= 5
    assert all(row.kind != "normalization" for row in update)
    passes = {row.kind for row in found.memory if not row.update}
    assert {"normalization", "reduction"} <= passes


def test_rows_add_up_to_the_sums():
    found = work(stack(layers=2))
    kernels = found.by_kernel
    flops = sum(row.flops for row in kernels.products)
    assert flops + sum(row.flops for row in kernels.attention) == found.flops
    assert sum(row.nbytes for row in kernels.memory) == found.other_bytes
    others = sum(row.count for row in kernels.products) + sum(
        row.count for row in kernels.attention
    )
    assert sum(row.kernels for row in kernels.memory) + others == found.kernels


def test_two_batch_sizes_give_every_other():
    two, four, seven = (calls(stack(batch, causal=True)) for batch in (2, 4, 7))
    assert calls_at_batch(two, 2, four, 4, 7) == seven


def test_two_depths_give_every_other():
    two, four = (calls(stack(layers=layers)) for layers in (2, 4))
    expected = kernel_work((call, 1) for call in calls(stack(layers=9)))
    found = kernel_work(calls_at_depth(two, 2, four, 4, 9))
    for name in ("products", "attention", "memory"):
        by_text = [sorted(map(repr, getattr(one, name))) for one in (found, expected)]
        assert by_text[0] == by_text[1]


def test_other_operators_are_refused():
    two, deep = calls(stack(2)), calls(stack(4, layers=2))
    with pytest.raises(PredictionError, match="depend on the batch size"):
        calls_at_batch(two, 2, deep, 4, 7)
