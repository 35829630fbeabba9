"""Scores per token against planted truth."""

import math

import numpy as np
import pytest

from ftbench.worker.tasks.token_scoring import (
    entropy,
    exact_match,
    guess_match,
    guess_tokens,
    mean_per_token,
    perplexity,
    token_accuracy,
)


def test_a_mean_weights_examples_by_their_tokens():
    values = np.array([[1.0, 1.0, 1.0], [5.0, 99.0, 99.0]])
    known = np.array([[True, True, True], [True, False, False]])
    assert mean_per_token(values, known)[0] == 2.0


def test_the_error_of_a_mean_is_that_of_a_bootstrap_over_examples():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 30, 200)
    known = np.arange(30) < lengths[:, None]
    # Tokens of an example are alike: independent tokens would have a third of this error.
    values = generator.normal(size=(200, 1)) + 0.3 * generator.normal(size=(200, 30))
    mean, error = mean_per_token(values, known)
    draws = generator.integers(0, 200, (2000, 200))
    means = [mean_per_token(values[rows], known[rows])[0] for rows in draws]
    assert mean == pytest.approx(np.mean(means), abs=0.01)
    assert error == pytest.approx(np.std(means), rel=0.1)


def test_one_example_has_no_error():
    assert mean_per_token(np.ones((1, 3)), np.ones((1, 3), dtype=bool)) == (1.0, None)


def test_intervals_hold_the_truth_in_95_of_100_draws():
    generator = np.random.default_rng(1)
    held = {"perplexity": 0, "accuracy": 0}
    for _ in range(400):
        known = np.arange(20) < generator.integers(5, 21, 60)[:, None]
        level = generator.normal(2.0, 0.5, (60, 1))
        losses = np.clip(level + generator.normal(0, 1, (60, 20)), 0, None)
        right = generator.random((60, 20)) < 0.4
        found = perplexity(losses, known, 1.0)
        held["perplexity"] += found.low <= math.exp(2.037) <= found.high
        share = token_accuracy(right.astype(float), known, 0.1)
        held["accuracy"] += share.low <= 0.4 <= share.high
    assert all(0.91 <= count / 400 <= 0.985 for count in held.values()), held


def test_a_loss_beyond_all_numbers_has_no_perplexity():
    assert perplexity(np.full((2, 3), 1e4), np.ones((2, 3), dtype=bool), 1.0) is None


def test_a_perfect_model_has_a_perplexity_of_1_and_an_interval_of_accuracy():
    known = np.ones((4, 5), dtype=bool)
    assert perplexity(np.zeros((4, 5)), known, 9.0).low == 1.0
    assert token_accuracy(np.ones((4, 5)), known, 0.1).low < 1.0


def test_exact_match_ignores_what_has_no_label():
    right = np.array([[0.0, 1.0], [1.0, 0.0]])
    known = np.array([[False, True], [True, True]])
    assert exact_match(right, known, 0.0).value == 0.5


def test_entropy_of_tokens():
    assert entropy(np.array([[1, 2], [-100, 1], [2, -100]])) == pytest.approx(math.log(2))


def test_a_guess_knows_the_frequencies_of_training_and_nothing_of_the_references():
    train = np.array([[1, 1, 1, 2]])
    references = np.array([[1, 2, 3, -100]])
    accuracy, found = guess_tokens(train, references)
    assert accuracy == pytest.approx(1 / 3)
    # Counts of training and one more for each of the tokens 1, 2 and 3: 4, 2 and 1 of 7.
    assert found == pytest.approx(
        math.exp(-(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3)
    )
    again, _ = guess_tokens(train, np.array([[3, 3, 3, 3, 3]]))
    assert again == 0.0


def test_the_most_frequent_completion_is_the_guess():
    train = np.array([[-100, 4], [-100, 4], [-100, 5]])
    assert guess_match(train, np.array([[4, -100], [5, -100]])) == 0.5
