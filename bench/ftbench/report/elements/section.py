"""Section: one part of a report, whatever it is rendered to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from ftbench.report.elements.figure import ReportFigure
from ftbench.report.elements.glossary import Term, terms_of
from ftbench.report.elements.table import Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and tables and figures below them; or the terms of a glossary."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    terms: tuple[Term, ...] = ()

    @property
    def texts(self) -> Iterator[str]:
        """Yield all that the section says, but the terms of a glossary."""
        yield from self.paragraphs
        for figure in self.figures:
            yield from (figure.title, figure.caption)
        for table in self.tables:
            yield from (table.title, *table.columns, *itertools.chain.from_iterable(table.rows))


def with_glossary(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return the sections that are not empty, and after them the terms that they use."""
    there = tuple(one for one in sections if one.paragraphs or one.tables or one.figures)
    terms = terms_of(dict.fromkeys(text for one in there for text in one.texts))
    return (*there, *([Section("Glossary", terms=terms)] if terms else []))
