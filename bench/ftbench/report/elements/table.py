"""Table: texts in rows and columns, whatever they are rendered to. Needs no analysis, and so no pandas."""

from __future__ import annotations

import dataclasses
from typing import Any

ABSENT = "–"  # noqa: RUF001 - an en dash, as tables have it
# So many values are all named where rows of a table are merged.
_MOST_TOGETHER = 4


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

    def merged(self, column: str, *, counted: str | None = None) -> Table:
        """Return the table with one row for all that differ only in a column, which has their values together.

        They may differ in `counted` as well, which has the first row's text and how many more there are. The
        result has no `keys`; a table without the column stays as it is.
        """
        names = self.columns
        if column not in names:
            return self
        apart = {names.index(name) for name in (column, counted) if name in names}
        groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for row in self.rows:
            same = tuple(text for place, text in enumerate(row) if place not in apart)
            groups.setdefault(same, []).append(row)

        def text(place: int, rows: list[tuple[str, ...]]) -> str:
            first, *more = [row[place] for row in rows]
            if place not in apart or not more:
                return first
            return _together(first, *more) if names[place] == column else f"{first} +{len(more)}"

        rows = (tuple(text(n, group) for n in range(len(names))) for group in groups.values())
        return dataclasses.replace(self, rows=tuple(rows), keys=())


def _together(*texts: str) -> str:
    """Return the values of a merged cell: all of a few, the first and the last of many."""
    texts = tuple(dict.fromkeys(texts))
    if len(texts) <= _MOST_TOGETHER:
        return ", ".join(texts)
    return f"{texts[0]} … {texts[-1]} ({len(texts)})"
