"""Markdown: the report as a file that renders on a forge and reads well without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftbench.base.text import printable
from ftbench.report.elements.table import Table

if TYPE_CHECKING:  # a document brings all of the analysis: a table needs none of it
    from ftbench.report.document import Document

_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})
_ESCAPED_IN_CODE = str.maketrans({"|": "\\|", "\n": " ", "\r": " "})


def render(document: Document) -> str:
    """Return a document as Markdown."""
    parts = [f"# {escaped(document.title)}"]
    for section in document.sections:
        parts.append(f"## {section.heading}")
        parts += [escaped(paragraph) for paragraph in section.paragraphs]
        for figure in section.figures:
            link = f"![{escaped(figure.alt)}]({document.figures_folder}/{figure.name}.svg)"
            parts += [f"### {escaped(figure.title)}", link, escaped(figure.caption)]
        for table in section.tables:
            if table.title != section.heading:
                parts.append(f"### {escaped(table.title)}")
            parts.append(table_text(table))
        if section.terms:
            parts.append(
                "\n".join(f"- **{escaped(t.name)}**: {escaped(t.meaning)}" for t in section.terms)
            )
    return "\n\n".join(parts) + "\n"


def render_table(table: Table) -> str:
    """Return one table under its title as Markdown."""
    return f"# {escaped(table.title)}\n\n{table_text(table)}\n"


def table_text(table: Table) -> str:
    """Return one table without its title."""
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [table.columns, rule, *table.rows]
    return "\n".join("| " + " | ".join(escaped(text) for text in line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Return a text that cannot break out of its place: no HTML, no table borders, no links.

    What stands between two backticks is code, and shown as it is: entities would be read as such there.
    """
    if "``" in text or "\\" in text or text.count("`") % 2:  # code may end elsewhere then
        return _plain(text)
    parts = enumerate(text.split("`"))
    return "`".join(_code(part) if place % 2 else _plain(part) for place, part in parts)


def _plain(text: str) -> str:
    return printable(text).translate(_ESCAPED).replace("](", "]\\(")


def _code(text: str) -> str:
    return printable(text).translate(_ESCAPED_IN_CODE)
