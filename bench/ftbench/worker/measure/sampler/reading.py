"""A reading: bytes by field; and the interface of instruments that are read at intervals."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Reading(NamedTuple):
    """Bytes by field of `ftbench.records.readings.Memory`, and the reasons that other fields are absent."""

    figures: dict[str, int]
    absent: dict[str, str]


class Instrument(Protocol):
    """Something that is read at intervals."""

    def read(self) -> Reading:
        """Return the current reading."""

    def totals(self) -> dict[str, Any]:
        """Return other results over all readings, for JSON."""
