"""Terminal: tables with rich, plain text if the output is no terminal."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from ftbench.base.text import printable
from ftbench.report.elements.table import Table

if TYPE_CHECKING:  # a document brings all of the analysis: a table of a plan needs none of it
    from ftbench.records.messages import Progress
    from ftbench.report.document import Document

_UNLIMITED = 10_000  # columns: a table is measured as if it had all the room it wants
SECTIONS = (
    "What differs",
    "What was found",
    "Several processes",
    "Cells",
    "Not compared",
    "Warnings",
    "How cost scales",
    "What to buy",
)


def show(console: Console, document: Document) -> None:
    """Print the findings and the tables of a document; notes are left to the report file."""
    for section in document.sections:
        if section.heading not in SECTIONS:
            continue
        console.print()
        console.print(Text(section.heading, style="bold"))
        for paragraph in section.paragraphs:
            console.print(Text(printable(paragraph)), soft_wrap=True)
        for table in section.tables:
            show_table(console, table, titled=table.title != section.heading)


def show_table(console: Console, table: Table, *, titled: bool = True) -> None:
    """Print one table in the width of the console, and name the columns that had no room.

    No number and no word is broken: the columns that can be spared go first, then the last ones; the first two
    stay.
    """
    if titled:
        console.print()
        console.print(Text(printable(table.title), style="italic"), soft_wrap=True)
    spared = [name for name in table.optional if name in table.columns]
    rest = [name for name in reversed(table.columns[2:]) if name not in spared]
    left_out = []
    for column in (*spared, *rest):
        comfortable = column in spared
        if _width(console, table, comfortable=comfortable) <= console.width:
            break
        table = table.without(column)
        left_out.append(column)
    console.print(_rich_table(table))
    if left_out:
        names = ", ".join(reversed(left_out))
        console.print(Text(f"not shown for lack of room: {names}", style="dim"))


def show_line(console: Console, text: str) -> None:
    """Print a line of prose: broken between words on a terminal, under its own indentation; else as it is."""
    line = printable(text)
    if console.is_terminal:
        indent = line[: len(line) - len(line.lstrip())]
        line = textwrap.fill(
            line,
            console.width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    console.print(Text(line), soft_wrap=True)


def _width(console: Console, table: Table, *, comfortable: bool) -> int:
    """Return the columns that a table needs: with its texts in one line each, or broken between words."""
    unlimited = console.options.update(max_width=_UNLIMITED)
    found = Measurement.get(console, unlimited, _rich_table(table))
    return found.maximum if comfortable else found.minimum


def _rich_table(table: Table) -> RichTable:
    rendered = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table = dataclasses.replace(
        table,
        columns=tuple(map(printable, table.columns)),
        rows=tuple(tuple(map(printable, row)) for row in table.rows),
    )
    for place, (column, numeric) in enumerate(zip(table.columns, table.numeric, strict=True)):
        texts = [row[place] for row in table.rows]
        whole = texts if numeric else [word for text in texts for word in text.split()]
        least = max(map(cell_len, [*whole, *column.split()]), default=0)
        rendered.add_column(
            Text(column),
            justify="right" if numeric else "left",
            min_width=least,
            # rich takes room from every column that it may wrap, and then finds the minimum of those that cannot
            # spare any: the table got wider than the terminal.
            no_wrap=least >= max(map(cell_len, [*texts, column]), default=0),
        )
    for row in table.rows:
        rendered.add_row(*map(Text, row))
    return rendered


@contextmanager
def phases_on(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    """Show a worker's phase in one line that disappears at the end; nothing if `stream` is not a terminal."""
    console = Console(file=stream)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("starting") as status:
        yield lambda progress: status.update(progress.phase)
