"""Section: one part of a report, whatever it is rendered to."""

from __future__ import annotations

import dataclasses

from ftbench.report.elements.figure import ReportFigure
from ftbench.report.elements.tables import Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and tables and figures below them."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
