"""Terminal: tables with rich, plain text if the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from ftbench.report.elements.tables import Table

if TYPE_CHECKING:  # a document brings all of the analysis: a table of a plan needs none of it
    from ftbench.report.document import Document

_UNLIMITED = 10_000  # columns: a table is measured as if it had all the room it wants
SECTIONS = (
    "What differs",
    "What was found",
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
            console.print(Text(paragraph), soft_wrap=True)
        for table in section.tables:
            show_table(console, table, titled=table.title != section.heading)


def show_table(console: Console, table: Table, *, titled: bool = True) -> None:
    """Print one table, less the columns that can be spared if they don't fit."""
    if titled:
        console.print()
        console.print(Text(table.title, style="italic"), soft_wrap=True)
    unlimited = console.options.update(max_width=_UNLIMITED)
    rendered = _rich_table(table)
    for column in table.optional:
        if Measurement.get(console, unlimited, rendered).maximum <= console.width:
            break
        table = table.without(column)
        rendered = _rich_table(table)
    console.print(rendered)


def _rich_table(table: Table) -> RichTable:
    rendered = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, numeric in zip(table.columns, table.numeric, strict=True):
        rendered.add_column(column, justify="right" if numeric else "left")
    for row in table.rows:
        rendered.add_row(*map(Text, row))
    return rendered
