"""FLOPs against the formula worked out by hand for a small encoder."""

import pytest

from ftbench.plan.profile import LoraSettings
from ftbench.plan.sources import resolve_model
from ftbench.worker.measure.steps import example_flops
from ftbench.worker.prepare.flops import count_flops, fit_flops
from ftbench.worker.recipe.method import with_method
from ftbench.worker.recipe.model import load_model
from tests.factories import profile, task

H, INNER, LAYERS, LABELS = 16, 24, 2, 3
CONFIG = {
    "num_hidden_layers": LAYERS,
    "hidden_size": H,
    "num_attention_heads": 2,
    "intermediate_size": INNER,
}


def small():
    workload = profile(workload={"weights": "random", "config": CONFIG}).workload
    return load_model(
        resolve_model(workload),
        ("a", "b", "c"),
        task(),
        attn_implementation="eager",
    ).model


@pytest.fixture(scope="module")
def model():
    return small()


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
        assert example_flops(coefficients, length) == by_hand(length)


def test_a_frozen_body_costs_its_forward_pass_alone():
    head = with_method(small(), "head", task())
    for length in (4, 32):
        # Of the classifier, the gradient of the weights; its input has none.
        assert count_flops(head, length) == by_hand(length) // 3 + 2 * H * LABELS
    assert fit_flops(head, 128) is not None


def lora_by_hand(length, rank):
    """Forward through weights and matrices; back to the input, and to the matrices alone."""

    def linear(tokens, size_in, size_out, *, first=False):
        weights, matrices = size_in * size_out, rank * (size_in + size_out)
        into_input = weights + rank * size_in  # the embeddings are frozen: nothing goes there
        of_matrices = matrices + rank * size_out
        return 2 * tokens * (weights + matrices + of_matrices + (0 if first else into_input))

    def layer(*, first):
        attended = sum(linear(length, H, H, first=first) for _ in "qkv")
        fed = linear(length, H, H) + linear(length, H, INNER) + linear(length, INNER, H)
        return attended + fed + 3 * 2 * 2 * length * length * H

    head = linear(1, H, H) + 3 * 2 * H * LABELS
    return layer(first=True) + (LAYERS - 1) * layer(first=False) + head


@pytest.mark.parametrize("rank", [1, 4])
def test_loras_flops_are_those_worked_out_by_hand(rank):
    lora = with_method(small(), "lora", task(), LoraSettings(r=rank))
    for length in (4, 32):
        assert count_flops(lora, length) == lora_by_hand(length, rank)
    assert example_flops(fit_flops(lora, 128), 77) == lora_by_hand(77, rank)


def test_a_model_that_is_no_quadratic_has_no_flops(model, monkeypatch):
    monkeypatch.setattr(
        "ftbench.worker.prepare.flops.count_flops", lambda model, length, label: length**3
    )
    assert fit_flops(model, 128) is None
    monkeypatch.setattr(
        "ftbench.worker.prepare.flops.count_flops", lambda model, length, label: length // 16
    )
    assert fit_flops(model, 128) is None


def test_a_grid_shorter_than_the_usual_lengths(model):
    assert fit_flops(model, 4) == fit_flops(model, 128)


def test_counting_leaves_no_gradient(model):
    count_flops(model, 8)
    assert all(parameter.grad is None for parameter in model.parameters())
