"""Words: names of axes, figures, costs and scores; a difference or a ratio with its interval, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftbench.base.units import format_ratio, format_value
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.scores import BY_NAME as SCORE_KINDS
from ftbench.records.figures import FIGURES
from ftbench.report.elements.table import ABSENT

if TYPE_CHECKING:
    from ftbench.analysis.comparisons.contrast import Contrast
    from ftbench.analysis.fits.laws import Interval

AXIS_WORDS = {
    "max_length": "length",
    "per_device_train_batch_size": "batch",
    "train_size": "training examples",
    "attn_implementation": "attention",
    "environment_id": "environment",
}
FIGURE_WORDS = {figure.name: figure.word for figure in FIGURES if figure.word}
COST_WORDS = FIGURE_WORDS | {"total_s": "total time", "step_median_s": "step time"}
NO_DIFFERENCE = "not distinguishable"
NO_INTERVAL = "no interval: too few runs"


def axis_word(name: str) -> str:
    """Return the word that a table's head has for an axis."""
    return AXIS_WORDS.get(name, name)


def cost_word(cost: str) -> str:
    """Return the name of a cost."""
    return COST_WORDS.get(cost, cost)


def score_word(name: str) -> str:
    """Return the name of a score as sentences and tables have it."""
    kind = SCORE_KINDS.get(name)
    return kind.word if kind else name


def difference_text(one: Contrast | None) -> str:
    """Return a difference of scores: `+0.030 (-0.010 to +0.070)`; a dash if there is none."""
    if one is None:
        return ABSENT
    ends = one.interval
    interval = f" ({ends.low:+.3f} to {ends.high:+.3f})" if ends else ""
    return f"{one.value:+.3f}{interval}"


def ratio_text(one: Contrast | None) -> str:
    """Return a ratio: `1.98x (1.90x to 2.06x)`; a dash if there is none."""
    if one is None:
        return ABSENT
    return format_ratio(one.value) + _ratio_ends(one.interval)


def _ratio_ends(ends: Interval | None) -> str:
    """Return an interval in brackets; empty if both ends read the same."""
    if ends is None:
        return ""
    low, high = format_ratio(ends.low), format_ratio(ends.high)
    return "" if low == high else f" ({low} to {high})"


def verdict_text(one: Contrast | None, *, more: str, less: str) -> str:
    """Return the verdict of a contrast in words."""
    if one is None:
        return ABSENT
    said = {
        "more": more,
        "less": less,
        "not distinguishable": NO_DIFFERENCE,
        "not known": NO_INTERVAL,
    }
    return said[one.verdict]


def point_text(point: Mapping[str, Any]) -> str:
    """Return axis values in words, the main axes first: `length 64, batch 8`."""
    names = [name for name in REQUIRED_AXES if name in point]
    names += [name for name in point if name not in REQUIRED_AXES]
    return ", ".join(f"{axis_word(name)} {format_value(point[name])}" for name in names)
