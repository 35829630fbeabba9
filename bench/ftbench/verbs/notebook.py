"""Notebook: tables as HTML, as a notebook shows the value of a cell."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftbench.report.elements.table import Table


def page_of(tables: Iterable[Table], lines: Sequence[str] = ()) -> str:
    """Return tables, each under its title, and lines of text below them, as HTML."""
    import pandas as pd

    parts = []
    for table in tables:
        frame = pd.DataFrame(list(table.rows), columns=list(table.columns))
        parts.append(
            f"<p><b>{html.escape(table.title)}</b></p>" + frame.to_html(index=False, border=0)
        )
    parts += [f"<p>{html.escape(line)}</p>" for line in lines]
    return "\n".join(parts)
