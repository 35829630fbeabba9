"""Scores: how well a trained model answers, each with its standard error and what guessing gives."""

from __future__ import annotations

from ftbench.base.frozen import FrozenModel

# Examples that are added to both outcomes of a share, half each: a share of 1.0 is not certain either.
# Agresti and Coull, "Approximate is better than exact" (1998).
_PLUS = 4


class Score(FrozenModel):
    """One score of a trained model on the evaluation examples.

    `standard_error` is that of another draw of as many evaluation examples, None if it is not known; `low` and
    `high` are the ends of the 95 % interval that comes with it. `guess` is the score of a model that does not
    read the text: the most frequent class, or the mean, of its training examples.
    """

    name: str
    value: float
    higher_is_better: bool
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    guess: float | None = None


def share_variance(share: float, examples: int) -> float:
    """Return the variance of a share of so many examples, which is not 0 for a share of 0 or 1 either."""
    near = (share * examples + _PLUS / 2) / (examples + _PLUS)
    return near * (1 - near) / examples
