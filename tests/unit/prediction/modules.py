"""Small modules whose memory can be counted by hand, as functions that a trace can call."""

import torch
from torch import nn

from ftbench.prediction.trace.events import Kind
from ftbench.prediction.trace.tracer import trace

WIDTH, ROWS = 4, 2
FLOAT = 4
WEIGHT, BIAS, BATCH = FLOAT * WIDTH * WIDTH, FLOAT * WIDTH, FLOAT * ROWS * WIDTH


def linear(optimizer=torch.optim.SGD, *, result=True, **options):
    """A square linear layer and a batch of its width; what is lost is the sum of its output."""

    def factory(device):
        model = nn.Linear(WIDTH, WIDTH, device=device)
        used = optimizer(model.parameters(), lr=0.1, **options)
        batch = torch.ones(ROWS, WIDTH, device=device)

        def step():
            loss = model(batch).sum()
            loss.backward()
            used.step()
            used.zero_grad()
            return loss if result else None

        return step

    return factory


def calls(function, *, backward=False):
    """A step that calls a function with the device; what it returns is kept until the next step."""

    def factory(device):
        def step():
            result = function(device)
            if backward:
                result.sum().backward()
            return result

        return step

    return factory


def events(trace, phase=None):
    """The allocations and frees of a phase: bytes, negative where freed, and the operator."""
    return [
        (int(sign * nbytes), trace.sites[site].operator)
        for sign, nbytes, site in zip(trace.signs, trace.nbytes, trace.site, strict=True)
        if sign and phase in (None, trace.sites[site].phase)
    ]


def sizes(trace, role):
    """The bytes of each block with a role, in the order of allocation."""
    roles = trace.roles()
    return [
        int(nbytes)
        for sign, block, nbytes in zip(trace.signs, trace.block, trace.nbytes, strict=True)
        if sign > 0 and roles[block] == role
    ]


def allocations(run, *, operator=None, target=None):
    """Return the bytes of what an operator, or any, allocates while `run(device)` is traced."""

    def factory(device):
        return lambda: run(device)

    events = trace(factory, steps=1, target=target)
    return [
        nbytes
        for (kind, _, site), nbytes in zip(events.rows(), events.nbytes.tolist(), strict=True)
        if kind == Kind.ALLOCATE and operator in (None, events.sites[site].operator)
    ]
