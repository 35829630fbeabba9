"""Clocks for the beginning and end of each optimizer step, which do not make the step wait.

On the CPU `perf_counter` is enough. On CUDA the host runs ahead of the card, so events are
recorded into the stream and read once, after the last step.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch


class StepClock(Protocol):
    """Marks moments in a device's work."""

    def mark(self) -> None:
        """Mark this moment of the device's work."""

    def seconds(self) -> list[float]:
        """Return the time of every mark in seconds after the first; call it once, at the end."""


class HostClock:
    """Marks from the monotonic clock."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        """Mark now."""
        self._marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the marks in seconds after the first."""
        return [mark - self._marks[0] for mark in self._marks]


class CudaClock:
    """Marks as events in the current CUDA stream."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Record an event; the host does not wait."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def seconds(self) -> list[float]:
        """Wait for the last event, then return all in seconds after the first."""
        if not self._events:
            return []
        self._events[-1].synchronize()
        return [self._events[0].elapsed_time(event) / 1e3 for event in self._events]
