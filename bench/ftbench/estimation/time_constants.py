"""The constants of the model of a step's time, read from `time_constants.toml`, which has the evidence of each."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from ftbench.base.frozen import FrozenModel


class TimeConstants(FrozenModel):
    """The constants shared by all cards; `ftbench.estimation.kernel_time` says what each does."""

    plain_share: float
    tf32_share: float
    tensor_share: float
    early_tensor_share: float
    plain_tile_edge: float
    tensor_tile_edge: float
    plain_depth_overhead: float
    tensor_depth_overhead: float
    product_start_s: float
    product_bandwidth_share: float
    bandwidth_share: float
    bytes_per_cycle: float
    kernel_start_s: float
    attention_share: float
    geforce_clock: float
    host_s: float
    host_update_s: float
    old_software: float
    tensor_power_share: float
    watts_per_tflops: dict[str, float]


class IntervalFactors(FrozenModel):
    """Factors up and down from a predicted time, by what the evidence reaches."""

    inside: float
    low_power_half: float
    unmeasured: float
    host: float


@cache
def load_time_constants() -> TimeConstants:
    """Return the constants that ftbench estimates with; read once."""
    return TimeConstants.model_validate(_values("constants"))


@cache
def load_interval_factors() -> IntervalFactors:
    """Return the factors of intervals; read once."""
    return IntervalFactors.model_validate(_values("interval"))


class TimeEvidence(FrozenModel):
    """How much the constants rest on: published step times, and the kinds of card among them."""

    steps: int
    cards: int


@cache
def load_time_evidence() -> TimeEvidence:
    """Return what the constants rest on; read once."""
    return TimeEvidence.model_validate(_file()["evidence"])


def _values(table: str) -> dict[str, Any]:
    return {name: one["value"] for name, one in _file()[table].items()}


def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
