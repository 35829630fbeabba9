"""Scores with their standard errors and intervals, from references and answers. Pure.

References and answers are arrays of one number per evaluation example.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ftbench.plan.scores import BY_NAME
from ftbench.records.scores import Score, share_variance
from ftbench.worker.tasks.protocol import Array

# 95 of 100 draws of a normal distribution lie within this many standard errors.
NORMAL = 1.959964
# The variance of Fisher's z of a correlation of n examples is a constant divided by n - 3. The constant is 1 for
# Pearson's; for Spearman's it depends on the correlation: Bonett and Wright, "Sample size requirements for
# estimating Pearson, Kendall and Spearman correlations" (2000).
_FEWEST_CORRELATED = 4


def accuracy(share: float, examples: int, guess: float) -> Score:
    """Return the share of right answers as a score."""
    error = math.sqrt(share_variance(share, examples))
    return score("accuracy", share, error, guess=guess)


def macro_f1(references: Array, answers: Array, guess: int) -> Score:
    """Return the mean of 2 TP / (2 TP + FP + FN) over the classes that occur in references or answers.

    The standard error is that of the infinitesimal jackknife over examples, which equals the delta method's
    (Efron 1982).
    """
    counts = _confusion(references, answers)
    value = _macro_f1(counts)
    examples = counts.sum()
    # The derivative by the weight of one pair of classes, from a small step to either side.
    step = 1e-6 * examples
    influence = np.zeros_like(counts)
    for pair in zip(*np.nonzero(counts), strict=True):
        moved = counts.copy()
        moved[pair] += step
        back = counts.copy()
        back[pair] -= step
        influence[pair] = (_macro_f1(moved) - _macro_f1(back)) / (2 * step) * examples
    mean = (influence * counts).sum() / examples
    variance = (counts * (influence - mean) ** 2).sum() / examples**2
    constant = np.full_like(answers, guess)
    guessed = _macro_f1(_confusion(references, constant))
    return score("f1_macro", value, math.sqrt(variance), guess=guessed)


def _confusion(references: Array, answers: Array) -> Array:
    """Return the confusion matrix of the classes that occur: references by row, answers by column."""
    classes, numbers = np.unique(np.concatenate([references, answers]), return_inverse=True)
    count = len(classes)
    pairs = numbers[: len(references)] * count + numbers[len(references) :]
    return np.bincount(pairs, minlength=count * count).reshape(count, count).astype(float)


def _macro_f1(counts: Array) -> float:
    right = np.diagonal(counts)
    both = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)))


def pearson(references: Array, answers: Array) -> Score | None:
    """Return the correlation with its interval by Fisher's z; None if either array is constant."""
    if _constant(references) or _constant(answers):
        return None
    return _correlated("pearson", _correlation(references, answers), len(references), 1.0)


def spearman(references: Array, answers: Array) -> Score | None:
    """Return the correlation of the ranks, with mean ranks for ties; None if either array is constant."""
    if _constant(references) or _constant(answers):
        return None
    value = _correlation(_ranks(references), _ranks(answers))
    return _correlated("spearman", value, len(references), 1 + value**2 / 2)


def mean_squared_error(references: Array, answers: Array, guess: float) -> Score:
    """Return the mean squared error; `guess` is the answer of a model that ignores the text."""
    squares = (answers - references) ** 2
    error = float(squares.std(ddof=1) / math.sqrt(len(squares))) if len(squares) > 1 else None
    guessed = float(((references - guess) ** 2).mean())
    return score("mse", float(squares.mean()), error, guess=guessed)


def _ranks(values: Array) -> Array:
    return pd.Series(values).rank().to_numpy()


def _constant(values: Array) -> bool:
    """Return whether values are equal up to the last digits of single precision."""
    return float(np.ptp(values)) <= 1e-6 * float(abs(values).max())


def _correlation(x: Array, y: Array) -> float:
    a, b = x - x.mean(), y - y.mean()
    spread = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / spread))


def _correlated(name: str, value: float, examples: int, variance: float) -> Score:
    """Return a correlation with the interval that is symmetric in Fisher's z; none for fewer than four examples."""
    if examples < _FEWEST_CORRELATED or abs(value) >= 1:
        return score(name, value, None, guess=0.0)
    in_z = math.sqrt(variance / (examples - 3)) if examples > 3 else math.inf
    z = math.atanh(value)
    low, high = math.tanh(z - NORMAL * in_z), math.tanh(z + NORMAL * in_z)
    error = (1 - value**2) * in_z
    return score(name, value, error, guess=0.0).model_copy(update={"low": low, "high": high})


def score(name: str, value: float, error: float | None, *, guess: float) -> Score:
    """Return a score with a normal interval, clipped to the score's bounds."""
    kind = BY_NAME[name]
    ends: dict[str, float] = {}
    if error is not None:
        least, most = kind.bounds
        ends["low"] = max(value - NORMAL * error, least)
        ends["high"] = min(value + NORMAL * error, most)
    return Score(
        name=name,
        value=value,
        higher_is_better=kind.higher_is_better,
        standard_error=error,
        guess=guess,
        **ends,
    )
