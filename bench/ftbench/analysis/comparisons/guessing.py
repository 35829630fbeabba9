"""Guessing: whether a cell's score is better than that of a model that does not read the text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ftbench.analysis.comparisons.contrast import (
    MeanEstimate,
    Point,
    Run,
    difference,
    is_more,
    known,
    mean_scores,
)
from ftbench.plan.scores import ScoreKind

# The standing of a cell whose score is not better than guessing by more than noise.
GUESSING = "no better than guessing"
# The column of the score of guessing.
GUESS = "score_guess"


def above_guessing(runs: Mapping[Point, Sequence[Run]], kind: ScoreKind) -> dict[Point, bool]:
    """Return, for every point with a score, whether it is better than guessing by more than noise.

    Guessing is the score of a model that does not read the text. True if that is not known, in earlier records.
    """
    found = {}
    for point, mean in mean_scores(runs, kind.column).items():
        guesses = known(runs[point], GUESS)
        if not guesses:
            found[point] = True
            continue
        guess = MeanEstimate(statistics.fmean(guesses), 0.0)
        ends = (mean.estimate, guess) if kind.higher_is_better else (guess, mean.estimate)
        found[point] = is_more(difference(*ends))
    return found
