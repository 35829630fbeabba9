"""Kinds of scores: for each, whether higher is better, and the values that it can have.

A task in the worker computes scores; profiles, tables, comparisons and reports read this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

# A score's scale decides its noise and its format.
# share        of the evaluation examples, from 0 to 1
# correlation  from -1 to 1
# perplexity   from 1: the exponential of a mean loss per token
# error        from 0, in the label's own unit
Scale = Literal["share", "correlation", "error", "perplexity"]


class ScoreKind(NamedTuple):
    """One kind of score: its name as `metric_for_best_model` has it, its word in tables, and its scale."""

    name: str
    word: str
    scale: Scale
    higher_is_better: bool = True

    @property
    def column(self) -> str:
        """Return the column of the score in tables."""
        return f"eval_{self.name}"

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the least and the largest value that the score can have."""
        return {
            "share": (0.0, 1.0),
            "correlation": (-1.0, 1.0),
            "error": (0.0, float("inf")),
            "perplexity": (1.0, float("inf")),
        }[self.scale]


ACCURACY = ScoreKind("accuracy", "accuracy", "share")
SCORES = (
    ACCURACY,
    ScoreKind("f1_macro", "macro F1", "share"),
    ScoreKind("pearson", "Pearson r", "correlation"),
    ScoreKind("spearman", "Spearman rho", "correlation"),
    ScoreKind("mse", "mean squared error", "error", higher_is_better=False),
    ScoreKind("f1_entities", "entity F1", "share"),
    ScoreKind("word_accuracy", "word accuracy", "share"),
    ScoreKind("token_accuracy", "token accuracy", "share"),
    ScoreKind("exact_match", "exact match", "share"),
    ScoreKind("perplexity", "perplexity", "perplexity", higher_is_better=False),
)
BY_NAME: Mapping[str, ScoreKind] = MappingProxyType({kind.name: kind for kind in SCORES})
# Cells are ranked and compared by the first of these scores that their runs have.
HEADLINES = tuple(
    BY_NAME[name]
    for name in (
        "accuracy",
        "pearson",
        "f1_entities",
        "word_accuracy",
        "exact_match",
        "token_accuracy",
    )
)
