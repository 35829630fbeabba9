"""What a first look at a data set found: columns, classes and tokens as tables, and the commands to go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ftbench.base.units import counted, format_seconds
from ftbench.records.first_look import ColumnFacts, DataColumns, Kind, TextFacts
from ftbench.records.token_facts import TokenFacts
from ftbench.report.commands.token_lengths import lengths_table
from ftbench.report.elements.table import ABSENT, Table

_KINDS: dict[Kind, str] = {
    "text": "texts",
    "whole": "whole numbers",
    "number": "numbers",
    "words": "lists of words",
    "tags": "lists of tags",
    "messages": "conversations",
    "other": "something else",
}


def columns_table(found: DataColumns) -> Table:
    """Return one row per column of the training split."""
    return Table(
        title=f"Columns of the split {found.train_split}",
        columns=("column", "kind", "different", "missing", "words", "examples"),
        rows=tuple(map(_column_row, found.columns)),
        numeric=(False, False, True, True, True, False),
        optional=("examples",),
    )


def _column_row(column: ColumnFacts) -> tuple[str, ...]:
    if column.refused is not None:
        return (column.name, "cannot be read", ABSENT, ABSENT, ABSENT, column.refused)
    return (
        column.name,
        _KINDS[column.kind],
        f"{column.distinct:,}" if column.distinct else ABSENT,
        f"{column.missing:,}",
        f"{column.words:.0f}" if column.kind == "text" else ABSENT,
        "; ".join(column.examples),
    )


def classes_table(facts: TextFacts) -> Table:
    """Return one row per class, the most frequent first."""
    counts = {one.name: (one.train_pool, one.eval_pool) for one in facts.classes}
    total = sum(map(sum, counts.values()))
    ordered = sorted(counts, key=lambda name: -sum(counts[name]))
    return Table(
        title="Classes",
        columns=("class", "share", "to train on", "held out"),
        rows=tuple(
            (name, f"{sum(counts[name]) / total:.1%}", *(f"{n:,}" for n in counts[name]))
            for name in ordered
        ),
        numeric=(False, True, True, True),
    )


def tokens_table(tokens: TokenFacts) -> Table:
    """Return one row per length: the texts that it cuts, and the tokens that are padding."""
    sample = f", of {tokens.texts:,} texts drawn at random" if tokens.texts < tokens.of else ""
    return lengths_table(
        f"Tokens per text: median {tokens.median:,}, 95 % have at most {tokens.p95:,}, longest"
        f" {tokens.longest:,}{sample}",
        tokens.by_length,
    )


def facts_lines(facts: TextFacts) -> Iterator[str]:
    """Yield what else was found in the texts."""
    yield (
        f"{counted(facts.train_pool, 'example')} to train on, {facts.eval_pool:,} to evaluate on"
        f" ({facts.eval_split})."
    )
    if facts.duplicates:
        other = f" ({facts.contradictions:,} with another label)" if facts.contradictions else ""
        yield f"{counted(facts.duplicates, 'text')} seen before{other}: left out by drop_duplicates."
    for reason, count in facts.left_out.items():
        if count and reason != "seen before":
            yield f"{counted(count, 'row')} {reason}: left out."
    yield from facts.notes


def time_line(cells: int, seconds: float | None, slowest: float, minutes: float) -> str:
    """Return how long the first grid takes, beside the time that it was to end in."""
    if seconds is None:
        return f"{counted(cells, 'cell')}; the time is not known: a step takes too long here to be timed first."
    line = (
        f"{counted(cells, 'cell')}: about {format_seconds(seconds)} on this machine, at most"
        f" {format_seconds(slowest * seconds)} (steps timed here, then counted by the schedule)."
    )
    if slowest * seconds > minutes * 60:
        return f"{line} That is more than --minutes {minutes:g}, and there is no smaller grid."
    return line


def next_commands(file: str, results: str) -> Sequence[str]:
    """Return the commands to go on with."""
    name = shlex.quote(file)
    return (
        f"ftbench plan {name}",
        f"ftbench predict {name} --gpu all",
        f"ftbench run {name}",
        f"ftbench estimate {name} --gpu all --runs {shlex.quote(results)}",
    )
