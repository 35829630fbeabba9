"""The interval of a predicted time: as wide as errors are on sources that the constants were not fitted on. Pure.

The factor up and down is that of steps like those that were published. It is wider where the evidence ends, and
each such reason is named. The low end is never below the roofline's, which no software can undercut.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.analysis.fits.laws import Interval
from ftbench.estimation.kernel_time import Step, product_type
from ftbench.estimation.time_constants import IntervalFactors, TimeConstants
from ftbench.plan.gpus import Dtype

# Why an interval is wider than that of published steps.
Gap = Literal["low-power half", "long attention", "unknown products", "host-bound"]
LOW_POWER_WATTS = 100.0
# The longest fused attention among published step times.
LONGEST_ATTENTION = 512
HOST_BOUND_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class TimeInterval:
    """Seconds with their interval, the factor that it was made with, and why that is wider than usual."""

    seconds: Interval
    factor: float
    gaps: tuple[Gap, ...]


def gaps_of(step: Step, dtype: Dtype, *, host_share: float) -> tuple[Gap, ...]:
    """Return where a step lies outside the evidence.

    `dtype` is that of most products, `host_share` the host's part of the step's time.
    """
    kernels = step.work.by_kernel
    found: list[Gap] = []
    if dtype in ("fp16", "bf16") and step.card.tdp_watts < LOW_POWER_WATTS:
        found.append("low-power half")
    if kernels.attention_length > LONGEST_ATTENTION:
        found.append("long attention")
    if any(product.flops_only for product in kernels.products):
        found.append("unknown products")
    if host_share >= HOST_BOUND_SHARE:
        found.append("host-bound")
    return tuple(found)


def interval_of(
    seconds: float, gaps: tuple[Gap, ...], factors: IntervalFactors, *, floor: float
) -> TimeInterval:
    """Return the interval of seconds with these gaps; its low end is at least `floor`."""
    factor = factor_of(gaps, factors)
    high = max(seconds * factor, floor)
    low = min(max(seconds / factor, floor), high)
    return TimeInterval(Interval(max(seconds, low), low, high), factor, gaps)


def factor_of(gaps: tuple[Gap, ...], factors: IntervalFactors) -> float:
    """Return the factor up and down with these gaps: that of the widest."""
    by_gap: dict[Gap, float] = {
        "low-power half": factors.low_power_half,
        "long attention": factors.unmeasured,
        "unknown products": factors.unmeasured,
        "host-bound": factors.host,
    }
    return max((by_gap[gap] for gap in gaps), default=factors.inside)


def least_seconds(step: Step, constants: TimeConstants) -> float:
    """Return the seconds of a step's products and attention at the peak of their types: no software is faster.

    The clock of a GeForce card is the one that it really reaches.
    """
    clock = constants.geforce_clock if step.card.geforce else 1.0
    kernels = step.work.by_kernel
    work: list[tuple[float, str]] = [(row.flops, row.dtype) for row in kernels.products]
    work += [(row.flops, row.dtype) for row in kernels.attention]
    peaks = step.card.peak_flops
    return sum(flops / (peaks[product_type(step, dtype)] * clock) for flops, dtype in work)
