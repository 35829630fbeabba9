"""What older versions of torch keep, in traces of small factories."""

import pytest
import torch

from ftbench.prediction.trace.tracer import Target, trace

ROWS, WIDTH = 64, 256
SCORES = ROWS * WIDTH * 4


def attention(*, kind="softmax", grad=True):
    def factory(device):
        weights = torch.nn.Parameter(torch.zeros(ROWS, WIDTH, device=device))

        def step():
            with torch.set_grad_enabled(grad):
                scores = weights * 2  # kept by nothing else
                result = getattr(torch, kind)(scores, dim=-1)
                del scores
                torch.zeros(1024, 1024, device=device)  # the peak is here
            if grad:
                (result * 3).sum().backward()
                weights.grad = None

        return step

    return factory


def peak(factory, version):
    return trace(factory, steps=2, target=Target(torch_version=version)).peak_bytes


@pytest.mark.parametrize("kind", ["softmax", "log_softmax"])
def test_before_1_11_a_softmax_keeps_its_input(kind):
    now = peak(attention(kind=kind), None)
    assert peak(attention(kind=kind), (1, 10)) == now + SCORES
    assert peak(attention(kind=kind), (1, 11)) == now


def test_without_gradients_nothing_is_kept():
    assert peak(attention(grad=False), (1, 10)) == peak(attention(grad=False), None)


def test_what_was_kept_is_given_back_with_the_result():
    found = trace(attention(), steps=3, target=Target(torch_version=(1, 10)))
    assert (
        found.peak_bytes
        == trace(attention(), steps=2, target=Target(torch_version=(1, 10))).peak_bytes
    )
