"""The decision in words: which cell to train with and why, in one sentence, and below it what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from ftbench.analysis.comparisons.contrast import separating_axes
from ftbench.analysis.comparisons.decision import Decision, Option, decision
from ftbench.analysis.tables.cells_table import (
    cells_table,
    headline_memory,
    headline_score,
    varying_axes,
)
from ftbench.base.units import counted, format_ratio, format_seconds, format_value
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.records.record import Record
from ftbench.report.elements.tables import figure_texts, memory_word
from ftbench.report.elements.words import axis_word, point_text

_MOST_VALUES = 6  # of an axis; of more, only both ends are named


def decision_of(records: Sequence[Record]) -> list[str]:
    """Return the decision that runs allow, in one sentence, and what was tried; empty if they allow none."""
    table = cells_table(records)
    axes = separating_axes(table, varying_axes(records))
    methods = [record.cell.method for record in records]
    return list(decision_words(decision(table, axes), table, axes, methods))


def decision_words(
    found: Decision | None, table: pd.DataFrame, axes: Sequence[str], methods: Sequence[str]
) -> Iterator[str]:
    """Yield the decision in one sentence, and what was tried; nothing without a decision.

    `methods` are those of the runs: of one method, it is said although no axis has it.
    """
    if found is None:
        return
    fixed = {"method": methods[0]} if len(set(methods)) == 1 else {}
    varying = [name for name in axes if table[name].nunique(dropna=False) > 1]
    shown = tuple(dict.fromkeys([*REQUIRED_AXES, *varying]))
    yield _sentence(found, table, shown, fixed)
    yield _tried(found, table, varying)


def _sentence(
    found: Decision, table: pd.DataFrame, shown: Sequence[str], fixed: dict[str, Any]
) -> str:
    chosen = found.chosen
    cell = point_text({name: chosen.point[name] for name in shown} | fixed)
    memory = ""
    if chosen.memory_bytes is not None:
        (text,) = figure_texts(headline_memory(table), [chosen.memory_bytes])
        memory = f", with {text} of {memory_word(table)}"
    word = headline_score(table).word
    seed = " (each cell has one seed, whose noise is not known)" if found.one_seed else ""
    return (
        f"Take {cell}: {word} {_score(chosen)} in {format_seconds(chosen.total_s)}{memory}:"
        f" {_why(found, shown)}{seed}."
    )


def _why(found: Decision, shown: Sequence[str]) -> str:
    """Return why the cell was chosen, and which others noise does not tell from it."""
    if not found.as_good:
        return "its score is above that of every other cell by more than noise"
    first = (
        "the cheapest" if found.cheaper is None else "the cheapest that no other is known to beat"
    )
    best = found.as_good[0]
    cell = point_text({name: best.point[name] for name in shown})
    if len(found.as_good) == 1:
        return f"{first}; {cell} ({best.score:.3f}) costs more and is not distinguishable from it"
    return (
        f"{first}; {len(found.as_good)} that cost more are not distinguishable from it,"
        f" the highest of them {cell} ({best.score:.3f})"
    )


def _score(option: Option) -> str:
    ends = option.interval
    return f"{option.score:.3f}" + (f" ({ends.low:.3f} to {ends.high:.3f})" if ends else "")


def _tried(found: Decision, table: pd.DataFrame, varying: Sequence[str]) -> str:
    """Return the values of the axes that were compared, the cells that are worse, and the cheapest of them."""
    values = "; ".join(f"{axis_word(name)} {_values(table[name])}" for name in varying)
    groups = {
        "known to be worse": found.worse,
        "no better than guessing": found.guessing,
    }
    rest = "; ".join(
        f"{count} {'is' if count == 1 else 'are'} {word}" for word, count in groups.items() if count
    )
    cheaper = ""
    if found.cheaper is not None:
        cell = point_text({name: found.cheaper.point[name] for name in varying})
        share = format_ratio(found.cheaper.total_s / found.chosen.total_s)
        cheaper = (
            f" The cheapest that learns, {cell}, takes {share} the time"
            f" and has {found.lost:.3f} less {headline_score(table).word}."
        )
    return (
        f"Tried: {values}: {counted(found.compared, 'cell')}{f'; {rest}' if rest else ''}.{cheaper}"
    )


def _values(column: pd.Series[Any]) -> str:
    values = column.drop_duplicates().dropna().tolist()
    if pd.api.types.is_numeric_dtype(column):
        values.sort()
    if len(values) > _MOST_VALUES and pd.api.types.is_numeric_dtype(column):
        return f"{format_value(values[0])} to {format_value(values[-1])}"
    return ", ".join(format_value(value) for value in values)
