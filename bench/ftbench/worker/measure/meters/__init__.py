"""Meters: each reads one kind of figure, from one named source.

A memory meter has `start()`, which begins a new peak, and `read()`, which returns the fields of
`ftbench.records.record.Memory` that it knows; `absent()` says why it knows no others. Peaks that neither the
kernel nor the driver keeps are sampled by a process beside the worker (`sampled`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class MemoryMeter(Protocol):
    """A source of peak memory figures for the phase that is running."""

    def idle(self) -> dict[str, int]:
        """Return what the figures read before the cell begins, in bytes, by field of `Memory`."""

    def start(self, phase: str) -> None:
        """Begin a new peak, of a phase."""

    def read(self) -> dict[str, int]:
        """Return the peaks since `start`, in bytes, by field of `Memory`."""

    def sources(self) -> dict[str, str]:
        """Return where each figure comes from, by field."""

    def absent(self) -> dict[str, str]:
        """Return why a field of `Memory` that is this meter's has no figure, by field."""


@runtime_checkable
class Withdrawing(Protocol):
    """A meter that may find out later that what it gave out does not hold."""

    def withdrawn(self) -> dict[str, str]:
        """Return the fields whose earlier figures do not hold, with the reason."""
