"""Traces of a user's own steps: the tracer's figure, and what is refused before or after it."""

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.steps import trace_steps
from ftbench.prediction.trace.tracer import STEPS, Target, trace


def make_step(device):
    weights = torch.zeros(256, device=device, requires_grad=True)

    def step():
        (weights * 2).sum().backward()

    return step


@pytest.mark.parametrize("steps", [None, 1, 5])
def test_the_figure_is_the_tracer_s(steps):
    expected = trace(make_step, steps=steps or STEPS)
    traced = trace_steps(make_step, steps=steps)
    assert traced.peak_bytes == expected.peak_bytes
    assert max(site.step for site in traced.sites) == (steps or STEPS)


def test_the_target_is_passed_on():
    asked = []

    def factory(device):
        asked.append(torch.cuda.get_device_capability())
        return make_step(device)

    trace_steps(factory, target=Target(compute_capability=(9, 0)))
    assert asked == [(9, 0)]


def test_a_number_of_steps_is_positive():
    with pytest.raises(PredictionError) as raised:
        trace_steps(make_step, steps=0)
    assert (raised.value.got, raised.value.expected) == ("0", "1 or more")


def test_steps_without_a_tensor_on_the_card_are_refused():
    with pytest.raises(PredictionError, match="make no tensor on the card"):
        trace_steps(lambda device: lambda: None)
