"""What a trace says of autograd's memory, against torch's own allocator."""

import contextlib
import gc

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ftbench.prediction.trace.tracer import Target, trace
from ftbench.worker.measure.meters.cpu_tensors import _changes

CPU = Target(device="cpu")
CPU = Target(device="cpu")


# Bytes. Smaller are the doubles that numbers become, and what a layer norm's threads sum into.
TENSOR = 4096


class Wide(nn.Module):
    """Two layers and a function of them; tensors of 16 and 64 KiB."""

    width, rows = 64, 256

    def __init__(self, function):
        super().__init__()
        self.one, self.other = (nn.Linear(self.width, self.width) for _ in range(2))
        self.norm = nn.LayerNorm(self.width)
        self.function = function

    def forward(self, batch):
        return self.function(self, batch)


def three_uses(m, x):
    hidden = m.one(x)
    return m.other(hidden.tanh()) + hidden * 3 + hidden.sigmoid()


def halves(m, x):
    query, key = m.one(x).chunk(2, -1)
    return query * key + query.relu()


def expanded(m, x):
    hidden = m.one(x)
    return hidden.expand(3, -1, -1) * hidden + hidden[None].expand(3, -1, -1)


def added_to_itself(m, x):
    hidden = m.one(x)
    return hidden + hidden


def transposed(m, x):
    hidden = m.one(x)
    return torch.cat([hidden.t(), hidden.t()]).sum(0) + hidden.view(-1, 2).sum(1)[:1]


def recomputed(m, x, *, use_reentrant):
    return checkpoint(
        lambda y: m.other(m.one(y).relu()).relu(), m.one(x), use_reentrant=use_reentrant
    )


FUNCTIONS = {
    "a chain": lambda m, x: m.other(m.norm(m.one(x))),
    "a residual": lambda m, x: (lambda h: h + m.other(h.relu()))(m.one(x)),
    "a gradient of three parts": three_uses,
    "a layer that is used twice": lambda m, x: m.one(m.one(x).relu()),
    "tied weights": lambda m, x: functional.linear(m.one(x).relu(), m.one.weight),
    "tied weights, transposed": lambda m, x: functional.linear(m.one(x).relu(), m.one.weight.t()),
    "a weight that is used three times": lambda m, x: functional.linear(
        functional.linear(m.one(x).relu(), m.one.weight).relu(), m.one.weight
    ),
    "a gradient that is used twice": added_to_itself,
    "halves of a tensor": halves,
    "expanded": expanded,
    "transposed": transposed,
    "dropout": lambda m, x: functional.dropout(m.one(x), 0.1),
    "in place": lambda m, x: m.other(m.one(x).relu_()),
    "recomputed": lambda m, x: recomputed(m, x, use_reentrant=False),
    "recomputed, reentrant": lambda m, x: recomputed(m, x, use_reentrant=True),
}


def training(function, optimizer, dtype=None):
    def factory(device):
        model = Wide(function).to(device)
        used = optimizer(model.parameters(), lr=0.1)
        batch = torch.ones(Wide.rows, Wide.width, device=device)
        casting = torch.autocast("cpu", dtype=dtype) if dtype else contextlib.nullcontext()

        def step():
            with casting:
                # The sigmoid: the gradient of a sum alone is expanded, and a product copies that in C++.
                loss = model(batch).sigmoid().sum()
            loss.backward()
            used.step()
            used.zero_grad()
            return loss

        return step

    return factory


def as_profiled(factory, steps):
    """The changes of torch's allocator, in bytes, while real steps run."""
    gc.collect()
    gc.disable()
    watch = profile(profile_memory=True)
    try:
        watch.__enter__()
        step, result = factory(torch.device("cpu")), None
        for _ in range(steps):
            result = step()
        watch.__exit__(None, None, None)
        del step, result
    finally:
        gc.enable()
    return _changes(watch)


def course(changes):
    """Each tensor's size with what is held from then on: the order of frees in between is open."""
    held, found = 0, []
    for change in changes:
        if abs(change) >= TENSOR:
            held += change
            if change > 0:
                found.append((change, held))
    return found


@pytest.mark.parametrize(
    ("optimizer", "dtype"),
    [(torch.optim.SGD, None), (torch.optim.Adam, torch.bfloat16)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_allocation_is_torchs_own(function, optimizer, dtype):
    factory = training(function, optimizer, dtype)
    found = trace(factory, target=CPU)
    # Where a processor multiplies bfloat16 itself (AVX-512 BF16), oneDNN does, with a scratchpad from torch's
    # allocator: of the machine's kernel, not of the step.
    with torch.backends.mkldnn.flags(enabled=False):
        profiled = as_profiled(factory, 3)
    assert course((found.signs * found.nbytes).tolist()) == course(profiled)
