"""The interval of a predicted time: as wide as errors are on sources that the constants were not fitted on. Pure.

The factor up and down is that of steps like those that were published. It is wider where the evidence ends, and each
such reason is named. The low end is never below the roofline's, which no software can undercut.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.analysis.fits.laws import Interval
from ftbench.estimate.card_speed import CardSpeed
from ftbench.estimate.kernel_time import Step, product_type
from ftbench.estimate.time_constants import IntervalFactors, TimeConstants
from ftbench.plan.gpus import Dtype

# Why an interval is wider than that of published steps.
Gap = Literal["low power, half precision", "long fused attention", "the host bounds the step"]
LOW_POWER_WATTS = 100.0
# The longest fused attention among published step times.
_LONGEST_ATTENTION = 512
_HOST_BOUND_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class TimeInterval:
    """Seconds with their interval, the factor that it was made with, and why that is wider than usual."""

    seconds: Interval
    factor: float
    gaps: tuple[Gap, ...]


def gaps_of(
    card: CardSpeed, dtype: Dtype, *, host_share: float, attention_length: int = 0
) -> tuple[Gap, ...]:
    """Return where a step lies outside the evidence.

    `host_share` is the host's part of the step's time, `attention_length` the length of its fused attention, 0
    without any.
    """
    found: list[Gap] = []
    if dtype in ("fp16", "bf16") and card.tdp_watts < LOW_POWER_WATTS:
        found.append("low power, half precision")
    if attention_length > _LONGEST_ATTENTION:
        found.append("long fused attention")
    if host_share >= _HOST_BOUND_SHARE:
        found.append("the host bounds the step")
    return tuple(found)


def interval_of(
    seconds: float, gaps: tuple[Gap, ...], factors: IntervalFactors, *, floor: float
) -> TimeInterval:
    """Return the interval of seconds with these gaps; its low end is at least `floor`."""
    by_gap: dict[Gap, float] = {
        "low power, half precision": factors.low_power_half,
        "long fused attention": factors.unmeasured,
        "the host bounds the step": factors.host,
    }
    factor = max((by_gap[gap] for gap in gaps), default=factors.inside)
    high = max(seconds * factor, floor)
    low = min(max(seconds / factor, floor), high)
    return TimeInterval(Interval(max(seconds, low), low, high), factor, gaps)


def least_seconds(step: Step, constants: TimeConstants) -> float:
    """Return the seconds of a step's products and attention at the peak of their types: no software is faster.

    The clock of a GeForce card is the one that it really reaches.
    """
    clock = constants.geforce_clock if step.card.geforce else 1.0
    kernels = step.work.by_kernel
    return sum(
        row.flops / (step.card.peak_flops[product_type(step, row.dtype)] * clock)
        for row in (*kernels.products, *kernels.attention)
    )
