"""Growth: which steps keep more and more, and what it is."""

import pytest
import torch

from ftbench.prediction.breakdown.growth import growth
from ftbench.prediction.trace.tracer import trace
from tests.unit.prediction.modules import FLOAT, linear


def keeps(every, *, until=None, lets_go=None):
    """Return steps that keep a tensor of one float in every k-th, and let go of all in every `lets_go`-th."""

    def factory(device):
        model = torch.nn.Linear(4, 4, device=device)
        optimizer = torch.optim.Adam(model.parameters())
        kept, steps = [], []

        def step():
            steps.append(None)
            model(torch.ones(2, 4, device=device)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if lets_go and len(steps) % lets_go == 0:
                kept.clear()
            if len(steps) % every == 0 and len(steps) < (until or 99):
                kept.append(torch.ones(1, device=device))

        return step

    return factory


@pytest.mark.parametrize(
    ("factory", "steps", "nbytes"),
    [
        (keeps(1), 3, FLOAT),
        (keeps(1), 2, None),  # too few to tell
        (keeps(1), 9, 4 * FLOAT),
        (keeps(4), 3, None),
        (keeps(4), 9, FLOAT),
        (keeps(4), 12, 2 * FLOAT),
        (keeps(1, until=3), 9, None),
        (keeps(1, lets_go=3), 9, None),
        (linear(torch.optim.Adam), 9, None),
    ],
)
def test_growth_is_of_the_last_steps(factory, steps, nbytes):
    found = growth(trace(factory, steps=steps))
    assert (found and found.nbytes) == nbytes


def test_what_grows_is_named_with_its_line():
    found = growth(trace(keeps(1), steps=5))
    (part,) = found.parts
    assert (found.steps, part.nbytes, part.operator) == (2, 2 * FLOAT, "aten::ones")
    assert part.source.partition(":")[0].endswith("test_growth.py")
