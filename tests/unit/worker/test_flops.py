"""FLOPs against the formula worked out by hand for a small encoder."""

import pytest

from bench.worker.flops import count_flops, fit_flops
from bench.worker.model import load_model
from bench.worker.steps import document_flops
from bench.workload import resolve_model
from tests.factories import profile

H, INNER, LAYERS, LABELS = 16, 24, 2, 3
CONFIG = {
    "num_hidden_layers": LAYERS,
    "hidden_size": H,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
}


@pytest.fixture(scope="module")
def model():
    workload = profile(workload={"weights": "random", "config": CONFIG}).workload
    return load_model(resolve_model(workload), ("a", "b", "c"), attn_implementation="eager")


def by_hand(length):
    """Multiply-adds count two; backward is twice forward."""
    tokens = 2 * length * (4 * H * H + 2 * H * INNER)  # q, k, v, output; two of the feed-forward
    attention = 2 * 2 * length * length * H  # scores and their product with the values
    head = 2 * (H * H + H * LABELS)  # pooler and classifier see one token
    return 3 * (LAYERS * (tokens + attention) + head)


@pytest.mark.parametrize("length", [4, 32, 100])
def test_counted_flops_are_those_worked_out_by_hand(model, length):
    assert count_flops(model, length) == by_hand(length)


def test_the_fitted_polynomial_is_exact(model):
    coefficients = fit_flops(model, 128)
    assert coefficients == (
        3 * 2 * (H * H + H * LABELS),
        3 * LAYERS * 2 * (4 * H * H + 2 * H * INNER),
        3 * LAYERS * 4 * H,
    )
    for length in (1, 77, 512):
        assert document_flops(coefficients, length) == by_hand(length)


def test_a_model_that_is_no_quadratic_has_no_flops(model, monkeypatch):
    monkeypatch.setattr("bench.worker.flops.count_flops", lambda model, length: length**3)
    assert fit_flops(model, 128) is None
    monkeypatch.setattr("bench.worker.flops.count_flops", lambda model, length: length // 16)
    assert fit_flops(model, 128) is None


def test_a_grid_shorter_than_the_usual_lengths(model):
    assert fit_flops(model, 4) == fit_flops(model, 128)


def test_counting_leaves_no_gradient(model):
    count_flops(model, 8)
    assert all(parameter.grad is None for parameter in model.parameters())
