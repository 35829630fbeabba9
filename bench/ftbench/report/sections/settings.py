"""The cost of a setting: one value beside another, in words and with one row per pair of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ftbench.analysis.comparisons.contrast import Contrast
from ftbench.analysis.comparisons.settings import Choice, ChoicePair, choices
from ftbench.analysis.tables.cells_table import headline_score
from ftbench.base.units import format_value
from ftbench.report.elements.section import Section
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import (
    NO_DIFFERENCE,
    NO_INTERVAL,
    axis_word,
    cost_word,
    difference_text,
    point_text,
    ratio_text,
)

HEADING = "What a setting costs"
_FOLD_FROM = 12
_UNTOLD = {"not distinguishable": f" ({NO_DIFFERENCE})", "not known": f" ({NO_INTERVAL})"}


def choices_section(table: pd.DataFrame, axes: Sequence[str]) -> Section:
    """Return the cost of each value of a setting over its first; empty if none was varied."""
    found = choices(table, axes)
    score = headline_score(table).word
    tables = tuple(choice_table(one, score) for one in found)
    return Section(HEADING, tuple(map(choice_words, found)), tables)


def choice_words(one: Choice) -> str:
    """Return the costs of a choice over all its pairs, and in the last of them, in a sentence."""
    last = one.pairs[-1]
    if len(one.pairs) == 1:
        return f"{_named(one)}: {_costs(last.ratios)}."
    at = point_text({name: last.fixed[name] for name in _varying(one)})
    return (
        f"{_named(one)}, in {len(one.pairs)} pairs of cells (the geometric mean of their ratios):"
        f" {_costs(one.ratios)}; at {at}: {_costs(last.ratios)}."
    )


def _costs(ratios: Mapping[str, Contrast]) -> str:
    return ", ".join(
        f"{ratio_text(found)} the {cost_word(cost)}{_UNTOLD.get(found.verdict, '')}"
        for cost, found in ratios.items()
    )


def choice_table(one: Choice, score: str) -> Table:
    """Return the ratios of the costs of a choice, and the difference of the score, one row per pair."""
    varying, costs = _varying(one), list(one.ratios)

    def row(pair: ChoicePair | Choice, fixed: Sequence[str]) -> tuple[str, ...]:
        ratios = (ratio_text(pair.ratios.get(cost)) for cost in costs)
        return (*fixed, *ratios, difference_text(pair.gain))

    rows = [row(pair, [format_value(pair.fixed[name]) for name in varying]) for pair in one.pairs]
    if len(rows) > 1:
        rows.append(row(one, ["all: mean", *[ABSENT] * (len(varying) - 1)]))
    columns = (*map(axis_word, varying), *map(cost_word, costs), score)
    return Table(
        title=f"{_named(one)}: ratios of costs, difference of {score}",
        columns=columns,
        rows=tuple(rows),
        numeric=(True,) * len(columns),
        folded=len(rows) > _FOLD_FROM,
    )


def _named(one: Choice) -> str:
    return f"{axis_word(one.axis)} {format_value(one.chosen)} over {format_value(one.other)}"


def _varying(one: Choice) -> list[str]:
    """Return the axes that tell the pairs apart."""
    first, *rest = one.pairs
    return [
        name for name, value in first.fixed.items() if any(p.fixed[name] != value for p in rest)
    ]
