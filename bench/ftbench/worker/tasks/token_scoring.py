"""Scores of a language model with their standard errors and intervals, from losses and answers per token. Pure.

Tokens of one example are not independent draws, examples are: a mean over tokens is a ratio of two sums over
examples, and its error is that of the ratio (Cochran, "Sampling Techniques", 1977, section 2.11).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ftbench.records.scores import Score, share_variance
from ftbench.worker.tasks.protocol import IGNORED, Array
from ftbench.worker.tasks.scoring import NORMAL, score


def mean_per_token(values: Array, known: Array) -> tuple[float, float | None]:
    """Return the mean of values over the known tokens, and its standard error; None for one example.

    Both arrays have one row per example and one column per token; there is at least one known token.
    """
    sums, counts = np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)
    examples, tokens = len(counts), counts.sum()
    mean = float(sums.sum() / tokens)
    if examples < 2:
        return mean, None
    residuals = sums - mean * counts
    variance = float((residuals**2).sum()) * examples / (examples - 1) / float(tokens) ** 2
    return mean, math.sqrt(variance)


def token_accuracy(right: Array, known: Array, guess: float, name: str = "token_accuracy") -> Score:
    """Return the share of the known tokens that the model answers; of a text, given the true tokens before them.

    The error is at least that of independent tokens, so that a share of 0 or 1 has one, too.
    """
    mean, error = mean_per_token(right, known)
    least = math.sqrt(share_variance(mean, int(known.sum())))
    return score(name, mean, None if error is None else max(error, least), guess=guess)


def perplexity(losses: Array, known: Array, guess: float) -> Score | None:
    """Return the exponential of the mean loss per token in nats, with an interval that is symmetric in the loss.

    None if it is too large for a number.
    """
    mean, error = mean_per_token(losses, known)
    if mean > math.log(np.finfo(float).max) - 1:
        return None
    value = math.exp(mean)
    found = score("perplexity", value, None if error is None else value * error, guess=guess)
    if error is None:
        return found
    low, high = math.exp(max(mean - NORMAL * error, 0.0)), _exp(mean + NORMAL * error)
    return found.model_copy(update={"low": low, "high": high})


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def exact_match(right: Array, known: Array, guess: float) -> Score:
    """Return the share of examples all of whose known tokens are the model's own answers.

    Greedy decoding gives a completion if, and only if, each of its tokens is the likeliest after those before it.
    """
    share = float(np.where(known, right, 1.0).all(axis=1).mean())
    return score("exact_match", share, math.sqrt(share_variance(share, len(right))), guess=guess)


def entropy(labels: Array) -> float:
    """Return the entropy of the distribution of the labels, in nats, without `IGNORED` ones; 0 for none."""
    counts = np.unique(labels[labels != IGNORED], return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def guess_tokens(train_labels: Array, references: Array) -> tuple[float, float]:
    """Return the accuracy and the perplexity of a model that knows only how often each token occurs in training.

    Each token of the references that training lacks counts as seen once, and all others once more (Laplace).
    """
    seen = train_labels[train_labels != IGNORED]
    wanted = references[references != IGNORED]
    tokens, counts = np.unique(np.concatenate([seen, wanted]), return_counts=True)
    extra = np.bincount(np.searchsorted(tokens, wanted), minlength=len(tokens))
    smoothed = counts - extra + 1
    of_wanted = smoothed[np.searchsorted(tokens, wanted)]
    loss = float(-np.log(of_wanted / smoothed.sum()).mean())
    likeliest = tokens[np.argmax(smoothed)]
    return float(np.mean(wanted == likeliest)), math.exp(loss)


def guess_match(train_labels: Array, references: Array) -> float:
    """Return the share of references that are the most frequent row of labels in training."""
    ((most, _),) = Counter(map(_known, train_labels)).most_common(1)
    return float(np.mean([_known(row) == most for row in references]))


def _known(row: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(label) for label in row if label != IGNORED)
