"""Scales: the unit that a chart shows a figure in, and the spacing of its axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from ftbench.base.units import SECONDS_PER_HOUR, byte_unit
from ftbench.report.elements.words import FIGURE_WORDS

# An axis whose largest value is this many times its smallest is logarithmic.
_LOG_FROM = 8
_MOST_TICKS = 12
# From which largest value on a unit of seconds is used: its name and size.
_SECONDS = (
    (3.0 * SECONDS_PER_HOUR, "hours", float(SECONDS_PER_HOUR)),
    (300.0, "minutes", 60.0),
    (1.0, "s", 1.0),
    (0.0, "ms", 1e-3),
)
# Three digits, no exponent, separators of thousands: 0.125, 12.5, 12,500 (d3-format).
NUMBER = ",.3~r"
AXIS_TITLES = {
    "max_length": "sequence length (tokens)",
    "per_device_train_batch_size": "batch size (examples)",
    "train_size": "training examples",
}


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit to show a figure in: its name, and how many of the figure's own it has."""

    name: str
    size: float

    def of(self, value: float) -> float:
        """Return a value in this unit, to six digits: no chart shows more, and bytes cost size."""
        return float(f"{value / self.size:.6g}")


def unit_of(figure: str, values: Iterable[float]) -> Unit:
    """Return the unit that suits the largest of a figure's values."""
    top = max(values, default=0.0)
    if figure.endswith("_bytes"):
        size, name = byte_unit([top])
        return Unit(name, size)
    if figure.endswith("_s") and not figure.endswith("_per_s"):
        return next(Unit(name, size) for least, name, size in _SECONDS if top >= least)
    return Unit("", 1.0)


def titled(figure: str, unit: Unit) -> str:
    """Return an axis title with its unit: `step time (ms)`."""
    word = {"step_median_s": "step time", "total_s": "total time"}.get(figure)
    word = word or FIGURE_WORDS.get(figure, figure)
    return f"{word} ({unit.name})" if unit.name else word


def axis_title(axis: str) -> str:
    """Return the title of a chart's axis for an axis of the grid."""
    return AXIS_TITLES.get(axis, axis)


def spacing(values: Sequence[float]) -> str:
    """Return `log` if the values span a factor that only a logarithm shows, else `linear`."""
    positive = [value for value in values if value > 0]
    spread = max(positive) / min(positive) if positive else 1
    return "log" if len(positive) == len(values) and spread >= _LOG_FROM else "linear"


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return the places of a logarithmic axis that are labelled: 1, 2 and 5 times powers of ten.

    If those are more than a dozen, only powers of ten; the axis begins and ends at such places.
    """
    low, high = min(values), max(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    places = [
        float(f"{step * 10.0**power:.6g}") for power in range(first, last + 1) for step in (1, 2, 5)
    ]
    below = [place for place in places if place <= low][-1:]
    found = [*below, *(place for place in places if low < place < high)]
    found += [place for place in places if place >= high][:1]
    return found if len(found) <= _MOST_TICKS else [10.0**p for p in range(first, last + 1)]


def spread_out(values: Sequence[float], most: int) -> list[float]:
    """Return at most so many of sorted values, evenly from the first to the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
