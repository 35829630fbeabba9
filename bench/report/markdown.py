"""Markdown: the report as a file that renders on a forge and reads well without."""

from __future__ import annotations

from bench.report.document import Document
from bench.report.tables import Table

_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


def render(document: Document) -> str:
    """Return a document as Markdown."""
    parts = [f"# {_text(document.title)}"]
    for section in document.sections:
        parts.append(f"## {section.heading}")
        parts += [_text(paragraph) for paragraph in section.paragraphs]
        for figure in section.figures:
            link = f"![{_text(figure.alt)}]({document.figures_folder}/{figure.name}.svg)"
            parts += [f"### {_text(figure.title)}", link, _text(figure.caption)]
        for table in section.tables:
            if table.title != section.heading:
                parts.append(f"### {_text(table.title)}")
            parts.append(_table(table))
    return "\n\n".join(parts) + "\n"


def render_table(table: Table) -> str:
    """Return one table under its title as Markdown."""
    return f"# {_text(table.title)}\n\n{_table(table)}\n"


def _table(table: Table) -> str:
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [table.columns, rule, *table.rows]
    return "\n".join("| " + " | ".join(_text(text) for text in line) + " |" for line in lines)


def _text(text: str) -> str:
    """Return a text that cannot break out of its place: no HTML, no table borders, no links."""
    return text.translate(_ESCAPED).replace("](", "]\\(")
