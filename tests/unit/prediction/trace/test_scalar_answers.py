"""What steps are told of tensors without data."""

import pytest
import torch

from ftbench.prediction.trace.tracer import Target, trace
from tests.unit.prediction.modules import (
    calls,
)

CPU = Target(device="cpu")


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize(
    "every_token_is_real",
    [
        lambda mask: mask.all(),
        lambda mask: (mask == 1).all().item(),
        lambda mask: torch.all(mask.bool()),
    ],
)
def test_the_target_answers_whether_there_is_padding(every_token_is_real, device, padding):
    answers = []

    def asks(device):
        answers.append(
            bool(every_token_is_real(torch.ones(2, 4, dtype=torch.int64, device=device)))
        )

    trace(calls(asks), steps=1, target=Target(device=device, padding=padding))
    assert answers == [not padding]


def test_other_questions_are_answered_with_no_nan_zero_and_one():
    answers = []

    def asks(device):
        number = torch.ones(3, device=device)
        answers.append((bool(number.isnan().any()), number.sum().item(), number.argmax().item()))

    trace(calls(asks), steps=1)
    assert answers == [(False, 1.0, 0)]


def test_the_arguments_of_a_distribution_are_valid():
    """As in reinforcement learning: torch checks scores and actions, and raises an error if they are not."""
    drawn = []

    def asks(device):
        scores = torch.zeros(2, 8, device=device)
        policy = torch.distributions.Categorical(logits=scores)
        drawn.append(policy.log_prob(policy.sample()).shape)

    trace(calls(asks), steps=1)
    assert drawn == [(2,)]


def test_a_number_that_is_made_of_numbers_alone_is_known():
    """As Longformer's number of windows: a size divided by the width of a window, which a view then has."""
    shapes = []

    def asks(device):
        states = torch.zeros(2, 1024, 8, device=device)
        windows = torch.div(states.size(1), 256, rounding_mode="trunc")
        shapes.append(states.view(2, windows, 256, 8).shape)

    trace(calls(asks), steps=1)
    assert shapes == [(2, 4, 256, 8)]
