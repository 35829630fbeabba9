"""Trainings that diverged, and some that did not, with planted losses."""

import math

import pandas as pd
import pytest

from ftbench.worker.measure.divergence import divergence_warnings, first_not_finite

GUESS = math.log(2)


def table(losses):
    return pd.DataFrame({"step": range(1, len(losses) + 1), "loss": losses})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_step_without_a_finite_loss_is_named(bad):
    losses = table([0.7, 0.6, bad, 0.5, bad])
    assert first_not_finite(losses) == 3
    (warning,) = divergence_warnings(losses, GUESS)
    assert (warning.name, warning.value) == ("diverged", 3)


def test_a_loss_of_millions_diverged():
    (warning,) = divergence_warnings(table([0.69] * 4 + [2e6, 8.4e6, 8.4e6, 8.4e6]), GUESS)
    assert (warning.name, warning.value) == ("diverged", 8.4e6)
    assert warning.threshold == pytest.approx(3 * GUESS)


@pytest.mark.parametrize(
    "losses",
    [
        [0.7, 0.65, 0.6, 0.5, 0.4],
        [0.05, 0.05, 0.05, 0.7, 0.8, 0.7],  # a head that was good already: no worse than a guess
        [0.7, 0.6, 9.0, 0.6, 0.5, 0.5, 0.6],  # one bad batch
        [0.7],
    ],
)
def test_an_ordinary_training_did_not(losses):
    assert first_not_finite(table(losses)) is None
    assert divergence_warnings(table(losses), GUESS) == []


def test_a_regression_of_large_labels_begins_with_a_large_loss():
    assert divergence_warnings(table([4e4, 3e4, 2.5e4, 2e4]), 2e4) == []
