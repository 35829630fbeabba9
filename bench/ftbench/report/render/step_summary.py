"""Step summary: a report's findings, cells and warnings on the page of a GitHub Actions run.

GitHub shows what a step appends to the file that GITHUB_STEP_SUMMARY names. A step whose file is larger
than 1 MiB has its summary dropped as a whole, and near that size it has been dropped without a word
(actions/runner issue 4337), so this stays well below, whatever other commands of the step have written.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftbench.base.errors import ProfileError, RunDirectoryError
from ftbench.report.elements.table import Table
from ftbench.report.render.markdown import escaped, table_text

if TYPE_CHECKING:
    from ftbench.report.document import Document
    from ftbench.report.elements.section import Section

VARIABLE = "GITHUB_STEP_SUMMARY"
LIMIT_BYTES = 1000 * 1024
# What a page is read for, in this order; the rest is in the report.
SECTIONS = (
    "Verdict",
    "What changed",
    "What differs",
    "What was found",
    "What to buy",
    "Cells",
    "Not compared",
    "Warnings",
)
_SENTENCES = ("What to buy",)  # without its tables
_LISTED = ("Warnings",)  # a table whose rows are list items
_LONGEST = 1000  # characters of one text: a failure may end with pages of a log
_FEWEST_BYTES = 4096  # that are worth a summary
_NOTE_BYTES = 512  # kept for the note on what was left out


def append(document: Document, environ: Mapping[str, str] = os.environ) -> Path:
    """Append a report's summary to the file that GITHUB_STEP_SUMMARY names, and return its path.

    Raises ProfileError if the variable is not set, and RunDirectoryError if the file cannot be
    written or has no room left.
    """
    name = environ.get(VARIABLE)
    if not name:
        raise ProfileError(
            f"the environment variable {VARIABLE} is not set",
            where="--format step-summary",
            expected="the file that GitHub Actions gives each step",
            hint=f"elsewhere name any file: {VARIABLE}=summary.md ftbench report ...",
        )
    file = Path(name)
    try:
        before = file.stat().st_size if file.exists() else 0
        if before > LIMIT_BYTES - _FEWEST_BYTES:
            raise RunDirectoryError(
                "no room left for a summary",
                where=name,
                got=f"{before:,} bytes written by this step so far",
                expected=f"at most {LIMIT_BYTES - _FEWEST_BYTES:,}",
                hint="give the command a step of its own",
            )
        text = render(document, LIMIT_BYTES - before)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise RunDirectoryError(f"cannot be written: {error.strerror}", where=name) from error
    return file


def render(document: Document, limit_bytes: int = LIMIT_BYTES) -> str:
    """Return a report's summary as Markdown of no more than so many bytes.

    What is most read comes first and is kept first; the note at the end says what was left out.
    """
    left = limit_bytes - _NOTE_BYTES
    parts, notes = [f"\n# {escaped(_clipped(document.title))}"], []
    left -= _size(parts[0])
    by_heading = {section.heading: section for section in document.sections}
    for heading in SECTIONS:
        section = by_heading.get(heading)
        blocks = _blocks(section) if section else []
        if not blocks:
            continue
        title = [f"## {escaped(heading)}"]  # said with the first block that has room
        for block in blocks:
            kept, text = block.cut(left - sum(map(_size, title)))
            if kept:
                parts += [*title, text]
                left -= sum(map(_size, [*title, text]))
                title = []
            if kept < len(block.rows):
                missing = len(block.rows) - kept
                notes.append(f"{missing} of {len(block.rows)} {block.what} of {heading!r}")
    if notes:
        files = "GitHub shows at most 1 MiB of a step; the report's own files have all"
        parts.append(f"Left out: {'; '.join(notes[:4])}. {files}.")
    return "\n\n".join(parts) + "\n"


@dataclasses.dataclass(frozen=True)
class _Block:
    """Lines that can be left out from the end: a list, or the rows under a table's head."""

    head: str
    rows: Sequence[str]
    what: str

    def cut(self, limit_bytes: int) -> tuple[int, str]:
        """Return (how many rows there is room for, the text with these)."""
        used, kept = _size(self.head), 0
        for row in self.rows:
            used += len(row.encode()) + 1
            if used > limit_bytes:
                break
            kept += 1
        return kept, "\n".join((*([self.head] if self.head else []), *self.rows[:kept]))


def _blocks(section: Section) -> list[_Block]:
    sentences = [f"- {escaped(_clipped(text))}" for text in section.paragraphs]
    blocks = [_Block("", sentences, "sentences")] if sentences else []
    if section.heading in _SENTENCES:
        return blocks
    for table in section.tables:
        if section.heading in _LISTED:
            items = [f"- {escaped(_clipped(': '.join(row)))}" for row in table.rows]
            blocks.append(_Block("", items, "items"))
        else:
            blocks.append(_table_block(table, titled=table.title != section.heading))
    return blocks


def _table_block(table: Table, *, titled: bool) -> _Block:
    clipped = dataclasses.replace(
        table, rows=tuple(tuple(map(_clipped, row)) for row in table.rows)
    )
    head, rule, *rows = table_text(clipped).split("\n")
    title = f"### {escaped(table.title)}\n\n" if titled else ""
    return _Block(f"{title}{head}\n{rule}", rows, "rows")


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _size(text: str) -> int:
    """Return the bytes of a part with the empty line after it."""
    return len(text.encode()) + 2
