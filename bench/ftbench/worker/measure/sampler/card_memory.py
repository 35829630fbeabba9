"""Memory of a card, and the other processes that used it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftbench.worker.measure.sampler.reading import Reading

if TYPE_CHECKING:
    from ftbench.worker.measure.meters.nvml import CardReading, NvmlCard

# Memory that an ended process freed can become free with a delay (vLLM: 8 failures in 3,288 runs).
SETTLE_S = 5.0
SETTLE_INTERVAL_S = 0.1


class CardMemory:
    """Readings of a card, with counts of other processes on it and of reasons for reduced clocks."""

    def __init__(self, card: NvmlCard) -> None:
        self._card = card
        self._readings = 0  # since the first phase began, as all counts below
        self._slowed = 0
        self._slowing: dict[str, int] = {}
        self._listed = False
        self._others: dict[int, int | None] = {}
        self._before: set[int] = set()
        self._most_newcomers = 0

    def read(self) -> Reading:
        """Return the card's figures, and update the counts."""
        reading = self._card.read()
        self._count(reading)
        return self._figures(reading)

    def settle(self, wait: Callable[[float], None] = time.sleep) -> tuple[Reading, bool]:
        """Wait until two readings in a row have the same device memory; return the last, and whether they had."""
        reading = self._card.read()
        for _ in range(round(SETTLE_S / SETTLE_INTERVAL_S)):
            before = reading.device_bytes
            wait(SETTLE_INTERVAL_S)
            reading = self._card.read()
            if reading.device_bytes == before:
                break
        self._before = set(reading.others or {})
        return self._figures(reading), reading.device_bytes == before

    def energy_mj(self) -> int | None:
        """Return the card's energy counter, in millijoules."""
        return self._card.energy_mj()

    def totals(self) -> dict[str, Any]:
        """Return the counts, for JSON."""
        return {
            "gone": self._card.gone,
            "sources": self._card.sources(),
            "slowed_share": self._slowed / self._readings if self._readings else 0.0,
            "slowing": self._slowing,
            "tenants": self._tenants(),
        }

    def _tenants(self) -> list[tuple[int | None, int | None]]:
        """Return PID and highest bytes of each other process on the card.

        If the driver never listed the worker's PID (a container), one of the processes that started after the
        idle reading may be the worker under its PID on the host, so one of them is not counted.
        """
        if self._listed:
            return list(self._others.items())
        known = [(pid, size) for pid, size in self._others.items() if pid in self._before]
        return known + [(None, None)] * (self._most_newcomers - 1)

    def _count(self, reading: CardReading) -> None:
        self._readings += 1
        self._slowed += bool(reading.slowing)
        for reason in reading.slowing or ():
            self._slowing[reason] = self._slowing.get(reason, 0) + 1
        self._listed |= reading.listed
        others = reading.others or {}
        for pid, size in others.items():
            sizes = [known for known in (size, self._others.get(pid)) if known is not None]
            self._others[pid] = max(sizes, default=None)
        self._most_newcomers = max(self._most_newcomers, len(others.keys() - self._before))

    @staticmethod
    def _figures(reading: CardReading) -> Reading:
        figures = {
            "peak_device_bytes": reading.device_bytes,
            "peak_process_bytes": reading.process_bytes,
        }
        return Reading({k: v for k, v in figures.items() if v is not None}, reading.absent)
