"""Where in the model operators ran, of small modules."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ftbench.prediction.trace.events import (
    BACKWARD,
    FORWARD,
)
from ftbench.prediction.trace.tracer import Target, trace
from tests.unit.prediction.modules import (
    ROWS,
    WIDTH,
)

CPU = Target(device="cpu")


class Nested(nn.Module):
    def __init__(self, device, *, recompute):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, device=device)
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH, device=device), nn.Tanh())
        self.recompute = recompute

    def forward(self, batch):
        hidden = self.first(batch)
        if self.recompute:
            return checkpoint(self.block, hidden, use_reentrant=self.recompute == "reentrant")
        return self.block(hidden)


def nested(recompute=None):
    def factory(device):
        model = Nested(device, recompute=recompute)

        def step():
            model(torch.ones(ROWS, WIDTH, device=device)).sigmoid().sum().backward()

        return step

    return trace(factory, steps=1)


def modules(found, phase, operator):
    return [
        found.sites[site].module
        for sign, site in zip(found.signs, found.site, strict=True)
        if sign > 0 and found.sites[site][0::3] == (phase, operator)
    ]


def test_where_in_the_model_an_operator_ran():
    found = nested()
    assert modules(found, FORWARD, "aten::addmm") == ["first", "block.0"]
    assert modules(found, FORWARD, "aten::tanh") == ["block.1"]
    assert modules(found, FORWARD, "aten::sigmoid") == [""]


def test_a_gradient_belongs_to_the_module_of_the_forward_pass():
    found = nested()
    assert modules(found, BACKWARD, "aten::tanh_backward") == ["block.1"]
    assert list(dict.fromkeys(modules(found, BACKWARD, "aten::mm"))) == ["block.0", "first"]
    assert modules(found, BACKWARD, "aten::sigmoid_backward") == [""]


@pytest.mark.parametrize("recompute", ["reentrant", "saved tensors"])
def test_a_block_that_is_recomputed_is_part_of_the_backward_pass(recompute):
    found = nested(recompute)
    assert modules(found, BACKWARD, "aten::addmm") == ["block.0"]
    assert modules(found, BACKWARD, "aten::tanh") == ["block.1"]
    assert modules(found, BACKWARD, "aten::tanh_backward") == ["block.1"]
