"""Meters: each reads one kind of figure, from one named source.

A memory meter has `start()`, which begins a new peak, and `read()`, which returns the fields of
`bench.record.Memory` that it knows; `absent()` says why it knows no others.
"""

from __future__ import annotations

from typing import Protocol


class MemoryMeter(Protocol):
    """A source of peak memory figures for the phase that is running."""

    def start(self) -> None:
        """Begin a new peak."""

    def read(self) -> dict[str, int]:
        """Return the peaks since `start`, in bytes, by field of `Memory`."""

    def absent(self) -> dict[str, str]:
        """Return why a field of `Memory` that is this meter's has no figure, by field."""
