"""Meters: each reads one kind of figure, from one named source.

A memory meter has `start()`, which begins a new peak, and `read()`, which returns those fields of
`ftbench.records.readings.Memory` that it can read; `absent()` returns the reasons for the others. Peaks that
neither the kernel nor the driver keeps are sampled by a process beside the worker (`sampled`).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class MemoryMeter(Protocol):
    """A source of peak memory figures for the phase that is running."""

    def idle(self) -> dict[str, int]:
        """Return the figures before the cell begins, in bytes, by field of `Memory`."""

    def start(self, phase: str) -> None:
        """Begin a new peak, for a phase."""

    def read(self) -> dict[str, int]:
        """Return the peaks since `start`, in bytes, by field of `Memory`."""

    def sources(self) -> dict[str, str]:
        """Return the source of each figure, by field."""

    def absent(self) -> dict[str, str]:
        """Return the reason that a field of this meter has no figure, by field of `Memory`."""


@runtime_checkable
class Withdrawing(Protocol):
    """A meter that may find out later that figures it returned are wrong."""

    def withdrawn(self) -> dict[str, str]:
        """Return the fields whose earlier figures are wrong, with the reason."""
