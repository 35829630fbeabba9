"""Table: texts in rows and columns, whatever they are rendered to. Needs no analysis, and so no pandas."""

from __future__ import annotations

import dataclasses
from typing import Any

ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts under a title; numbers stand to the right.

    `keys` has the value behind each text, to sort by: a number (bytes, seconds), or None if it
    is absent. A table that is `folded` is shown by a page only when opened. A phone shows the columns `leading`
    before all others.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    optional: tuple[str, ...] = ()  # columns that a narrow place leaves out, in this order
    keys: tuple[tuple[float | str | None, ...], ...] = ()
    folded: bool = False
    leading: tuple[str, ...] = ()

    def without(self, column: str) -> Table:
        """Return the table less one column."""
        keep = [i for i, name in enumerate(self.columns) if name != column]

        def pick(items: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(items[i] for i in keep)

        return dataclasses.replace(
            self,
            columns=pick(self.columns),
            rows=tuple(map(pick, self.rows)),
            numeric=pick(self.numeric),
            keys=tuple(map(pick, self.keys)),
        )
