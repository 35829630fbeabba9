"""A reading: bytes by field, and what can be read at intervals."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Reading(NamedTuple):
    """Bytes by field of `ftbench.records.record.Memory`, and why a field has none."""

    figures: dict[str, int]
    absent: dict[str, str]


class Instrument(Protocol):
    """Something that is read at intervals."""

    def read(self) -> Reading:
        """Return a reading of now."""

    def totals(self) -> dict[str, Any]:
        """Return what else was seen over all readings, for JSON."""
