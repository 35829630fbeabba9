"""Scores and their errors, against scipy, against bootstraps, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from ftbench.plan.scores import SCORES
from ftbench.worker.tasks import scoring
from ftbench.worker.tasks.tasks import TASKS
from tests.factories import task


def related(count, slope=1.0, seed=0):
    draw = np.random.default_rng(seed)
    wanted = draw.normal(size=count)
    return wanted, slope * wanted + draw.normal(size=count)


def f1_by_hand(references, answers):
    classes = set(references) | set(answers)
    found = []
    for one in classes:
        right = np.sum((references == one) & (answers == one))
        found.append(2 * right / (np.sum(references == one) + np.sum(answers == one)))
    return float(np.mean(found))


def classified(count=400, classes=3, seed=1):
    draw = np.random.default_rng(seed)
    references = draw.choice(classes, count, p=[0.6, 0.3, 0.1])
    answers = np.where(draw.random(count) < 0.7, references, draw.integers(0, classes, count))
    return references, answers


def test_macro_f1_is_the_mean_over_classes_that_occur():
    references, answers = classified()
    found = scoring.macro_f1(references, answers, guess=0)
    assert found.value == pytest.approx(f1_by_hand(references, answers))
    assert scoring.macro_f1(np.array([0, 5]), np.array([0, 0]), 0).value == pytest.approx(1 / 3)


def test_macro_f1_s_error_is_that_of_a_bootstrap():
    references, answers = classified()
    draw = np.random.default_rng(2)
    rows = (draw.integers(0, len(references), len(references)) for _ in range(1500))
    spread = np.std([f1_by_hand(references[row], answers[row]) for row in rows])
    assert scoring.macro_f1(references, answers, 0).standard_error == pytest.approx(spread, rel=0.1)


def test_guessing_the_most_frequent_class_is_right_for_one_class_only():
    references = np.array([0] * 6 + [1] * 4)
    found = scoring.macro_f1(references, references, guess=0)
    assert found.value == 1
    assert found.guess == pytest.approx(2 * 6 / (6 + 10) / 2)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(scoring.pearson, stats.pearsonr), (scoring.spearman, stats.spearmanr)]
)
def test_correlations_are_scipy_s(ours, theirs):
    wanted, answers = related(60)
    assert ours(wanted, answers).value == pytest.approx(float(theirs(wanted, answers).statistic))
    tied = np.round(answers)
    assert ours(wanted, tied).value == pytest.approx(float(theirs(wanted, tied).statistic))


def test_pearson_s_interval_is_fisher_s():
    wanted, answers = related(60)
    found = scoring.pearson(wanted, answers)
    expected = stats.pearsonr(wanted, answers).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("score", [scoring.pearson, scoring.spearman])
@pytest.mark.parametrize("slope", [0.2, 1.0, 3.0])
def test_intervals_of_correlations_hold_the_truth_in_95_of_100_cases(score, slope):
    truth = score(*related(200_000, slope, seed=99)).value
    found = [score(*related(50, slope, seed)) for seed in range(1000, 2000)]
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.92 <= held <= 0.98
    errors = np.mean([one.standard_error for one in found])
    assert errors == pytest.approx(np.std([one.value for one in found]), rel=0.15)


def test_a_mean_squared_error_has_the_error_of_a_mean():
    wanted, answers = related(40)
    found = scoring.mean_squared_error(wanted, answers, guess=0.5)
    squares = (wanted - answers) ** 2
    assert found.value == pytest.approx(squares.mean())
    assert found.standard_error == pytest.approx(squares.std(ddof=1) / math.sqrt(40))
    assert found.guess == pytest.approx(((wanted - 0.5) ** 2).mean())
    assert found.low >= 0


def test_one_example_has_no_error():
    assert scoring.mean_squared_error(np.array([1.0]), np.array([3.0]), 0.0).standard_error is None


@pytest.mark.parametrize("score", [scoring.pearson, scoring.spearman])
def test_what_is_the_same_throughout_correlates_with_nothing(score):
    wanted = np.arange(8.0)
    assert score(wanted, np.full(8, 2.0)) is None
    assert score(wanted, 2.0 + 1e-9 * wanted) is None
    assert score(np.ones(8), wanted) is None


@pytest.mark.parametrize(("count", "known"), [(3, False), (4, True), (60, True)])
def test_an_interval_takes_four_examples(count, known):
    found = scoring.pearson(*related(count))
    assert (found.standard_error is not None) is known
    assert (found.low is not None) is known


def test_a_perfect_correlation_has_no_interval():
    wanted = np.arange(9.0)
    assert scoring.pearson(wanted, 3 * wanted).low is None
    assert scoring.pearson(wanted, 3 * wanted).value == pytest.approx(1.0)


def test_accuracy_s_interval_stays_among_shares_and_is_never_nothing():
    found = scoring.accuracy(1.0, 16, guess=0.5)
    assert found.high == 1.0
    assert found.low < 1.0
    assert found.guess == 0.5


def test_every_kind_of_score_is_that_of_a_task():
    tasks = [task(name, completion_column="answer") for name in TASKS]
    assert {name for of in tasks for name in of.scores} == {kind.name for kind in SCORES}
