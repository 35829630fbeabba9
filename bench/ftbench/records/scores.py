"""Scores of a trained model, each with its standard error and the score of a guess."""

from __future__ import annotations

from pydantic import Field

from ftbench.base.frozen import FrozenModel

# Examples added to both outcomes of a share, half to each, so that a share of 1.0 has a variance, too
# (Agresti and Coull, "Approximate is better than exact", 1998).
_PLUS = 4


class Score(FrozenModel):
    """One score of a trained model on the evaluation examples."""

    name: str = Field(description="The kind of score.")
    value: float = Field(description="The score.")
    higher_is_better: bool = Field(description="Whether a higher one is better.")
    standard_error: float | None = Field(
        None,
        description="Its spread over other draws of as many evaluation examples; None if it is unknown.",
    )
    low: float | None = Field(None, description="The lower end of the 95 % interval.")
    high: float | None = Field(None, description="The upper end of the 95 % interval.")
    guess: float | None = Field(
        None,
        description="The score of a model that ignores the text and always answers the most frequent class, or the"
        " mean, of the training examples.",
    )


def share_variance(share: float, examples: int) -> float:
    """Return the variance of a share of `examples`; it is above 0 even for a share of 0 or 1."""
    near = (share * examples + _PLUS / 2) / (examples + _PLUS)
    return near * (1 - near) / examples
