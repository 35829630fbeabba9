"""The decision in words: which cell to train with and why, in one sentence, and below it what was tried."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
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

_UNTOLD = "are not distinguishable from it"
_UNTOLD_ONE = "is not distinguishable from it"
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
    varying = [name for name in axes if len({repr(point[name]) for point in found.points}) > 1]
    shown = tuple(dict.fromkeys([*REQUIRED_AXES, *varying]))
    yield _sentence(found, table, shown, fixed)
    yield _tried(found, table, varying)


def _sentence(
    found: Decision, table: pd.DataFrame, shown: Sequence[str], fixed: Mapping[str, Any]
) -> str:
    chosen = found.chosen
    cell = point_text({name: chosen.point[name] for name in shown} | dict(fixed))
    memory = ""
    if chosen.memory_bytes is not None:
        (text,) = figure_texts(headline_memory(table), [chosen.memory_bytes])
        memory = f", with {text} of {memory_word(table)}"
    word = headline_score(table).word
    seed = " (each cell has one seed, and how far another would lie is not known)"
    return (
        f"Take {cell}: {word} {_score(chosen)} in {format_seconds(chosen.total_s)}{memory}:"
        f" {_why(found, shown)}{seed if found.one_seed else ''}."
    )


def _why(found: Decision, shown: Sequence[str]) -> str:
    """Return why the cell was chosen, and which others noise does not tell from it."""
    if not found.as_good:
        return _alone(found)
    parts = ["no other is known to beat it, and none that costs less scores as high"]
    if (count := len(found.dearer)) > 1:
        highest = _named(found.dearer[0], shown)
        parts.append(
            f"{count} cost more and score higher, but {_UNTOLD}, the highest of them {highest}"
        )
    elif found.dearer:
        parts.append(
            f"{_named(found.dearer[0], shown)} costs more and scores higher, but {_UNTOLD_ONE}"
        )
    if (count := len(found.alike)) > 1:
        parts.append(f"{count} score no higher than others of their cost, but {_UNTOLD}")
    elif found.alike:
        parts.append(
            f"{_named(found.alike[0], shown)} scores no higher than one of its cost, but {_UNTOLD_ONE}"
        )
    return "; ".join(parts)


def _alone(found: Decision) -> str:
    """Return why a cell was chosen from which every other is told."""
    if not found.worse:
        return "the only one that is known to be better than guessing"
    if found.chosen.interval is None:
        return "the highest score of those that learned, with noise that is not known"
    return "its score is above that of every other cell that learned, by more than noise"


def _named(option: Option, shown: Sequence[str]) -> str:
    """Return a cell by its values and its score."""
    return f"{point_text({name: option.point[name] for name in shown})} ({option.score:.3f})"


def _score(option: Option) -> str:
    ends = option.interval
    return f"{option.score:.3f}" + (f" ({ends.low:.3f} to {ends.high:.3f})" if ends else "")


def _tried(found: Decision, table: pd.DataFrame, varying: Sequence[str]) -> str:
    """Return the values of the axes that were compared, the cells that are worse, and the cheapest of them."""
    values = "; ".join(f"{axis_word(name)} {_values(name, found.points)}" for name in varying)
    groups = {
        "known to be worse": found.worse,
        "no better than guessing": found.guessing,
        "without a score": found.unscored,
    }
    rest = "; ".join(
        f"{count} {'is' if count == 1 else 'are'} {word}" for word, count in groups.items() if count
    )
    cheaper = ""
    if found.cheaper is not None:
        cell = point_text({name: found.cheaper.point[name] for name in varying})
        share = format_ratio(found.cheaper.device_s / found.chosen.device_s)
        cheaper = (
            f" The cheapest that learns, {cell}, takes {share} the time"
            f" and has {found.lost:.3f} less {headline_score(table).word}."
        )
    compared = counted(len(found.points), "cell")
    return f"Tried: {values}: {compared} compared{f'; {rest}' if rest else ''}.{cheaper}"


def _values(name: str, points: Sequence[Mapping[str, Any]]) -> str:
    values = list(dict.fromkeys(point[name] for point in points))
    numeric = all(isinstance(value, numbers.Real) for value in values)
    if numeric:
        values.sort()
    if numeric and len(values) > _MOST_VALUES:
        return f"{format_value(values[0])} to {format_value(values[-1])}"
    return ", ".join(map(format_value, values))
