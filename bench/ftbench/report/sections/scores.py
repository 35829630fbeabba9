"""Scores: how well each cell answers, with its interval, beside what guessing gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from ftbench.analysis.comparisons.contrast import points
from ftbench.analysis.comparisons.guessing import above_guessing
from ftbench.analysis.tables.cells_table import headline_score
from ftbench.base.units import format_value
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word, score_word

HEADING = "Scores"
_NOTE = (
    "Each score is the mean over seeds; in brackets are the ends of its 95 % interval over evaluation examples,"
    " also means over seeds. Guessing is the score of a model that does not read the text: it answers the most"
    " frequent class, or the mean, of its training examples. A cell whose first score is not better than that by"
    " more than noise is marked."
)


def scores_section(table: pd.DataFrame, scores: pd.DataFrame, axes: Sequence[str]) -> Section:
    """Return the scores of every cell, of tables of cells and of scores; empty if no run has one."""
    trusted = scores[scores["untrusted"] == ""]
    names = list(dict.fromkeys(trusted["score"]))
    if not names:
        return Section(HEADING)
    shown = [axis for axis in axes if table[axis].nunique(dropna=False) > 1]
    found = _means(trusted)
    above = above_guessing(points(table, ["cell_id"]), headline_score(table))
    guessing = {cell for (cell,), learned in above.items() if not learned}
    rows = tuple(
        (
            *(format_value(cell[axis]) for axis in shown),
            *_texts(found, cell["cell_id"], names, marked=cell["cell_id"] in guessing),
        )
        for cell in table.drop_duplicates("cell_id").to_dict("records")
    )
    heads = [text for name in names for text in (score_word(name), "guessing")]
    table_of_scores = Table(
        title="Scores of each cell",
        columns=(*map(axis_word, shown), *heads),
        rows=rows,
        numeric=(True,) * (len(shown) + len(heads)),
        folded=True,
        leading=tuple(map(score_word, names)),
    )
    return Section(HEADING, (_NOTE,), (table_of_scores,))


Means = Mapping[tuple[str, str], Mapping[str, float]]  # by cell and score


def _means(scores: pd.DataFrame) -> Means:
    """Return the mean over seeds of each figure of a score; repeats of a seed are no further evidence."""
    seeds = scores.drop_duplicates(["cell_id", "seed", "score"])
    figures = ["value", "low", "high", "guess"]
    means = (
        seeds.astype(dict.fromkeys(figures, float)).groupby(["cell_id", "score"])[figures].mean()
    )
    return dict(zip(means.index, means.to_dict("records"), strict=True))


def _texts(means: Means, cell_id: str, names: Sequence[str], *, marked: bool) -> Iterator[str]:
    """Yield each score of a cell with its interval, and what guessing gives; dashes if it has none.

    The first is `marked` if it is no better than guessing.
    """
    for place, name in enumerate(names):
        mean = means.get((cell_id, name))
        if mean is None:
            yield from (ABSENT, ABSENT)
            continue
        ends = f" ({mean['low']:.3f} to {mean['high']:.3f})" if pd.notna(mean["low"]) else ""
        yield f"{mean['value']:.3f}{ends}"
        if pd.isna(mean["guess"]):
            yield ABSENT
            continue
        yield f"{mean['guess']:.3f}" + (" (not better)" if marked and not place else "")
