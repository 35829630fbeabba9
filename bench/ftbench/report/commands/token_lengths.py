"""What sequence lengths make of texts, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftbench.records.token_facts import LengthFacts
from ftbench.report.elements.table import Table


def lengths_table(title: str, by_length: Sequence[LengthFacts]) -> Table:
    """Return one row per length: the share of texts that it cuts, and of tokens that are padding."""
    return Table(
        title=title,
        columns=("length", "texts cut", "padding"),
        rows=tuple(
            (str(one.max_length), f"{one.cut:.1%}", f"{one.padding:.1%}") for one in by_length
        ),
        numeric=(True, True, True),
    )


def lengths_json(by_length: Sequence[LengthFacts]) -> list[dict[str, Any]]:
    """Return the same as JSON data: shares between 0 and 1."""
    return [one.model_dump(mode="json") for one in by_length]
