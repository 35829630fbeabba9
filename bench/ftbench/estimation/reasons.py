"""Reasons: where a figure comes from, why it is absent, and notes beside figures. Values, no sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ftbench.analysis.fits import reasons as fits
from ftbench.analysis.fits.laws import HeldOut
from ftbench.estimation.time_interval import Gap
from ftbench.plan.gpus import Dtype, ListPrice


@dataclasses.dataclass(frozen=True)
class SettingDifference:
    """A setting that runs have another value of than the run that is asked about; None is absent."""

    name: str
    of_runs: Any
    asked: Any


@dataclasses.dataclass(frozen=True)
class Outside:
    """An axis on which a cell lies outside of the measured values."""

    axis: str
    target: float
    low: float
    high: float

    @property
    def factor(self) -> float:
        """Return the cell's value over the nearest measured one, or the inverse: more than 1."""
        return self.target / self.high if self.target > self.high else self.low / self.target


# Where a figure comes from


@dataclasses.dataclass(frozen=True)
class RunsFit:
    """A fit of measured runs; `held_out` has its error on cells of this kind, None if there were too few."""

    runs: int
    held_out: HeldOut | None
    extrapolated: bool


@dataclasses.dataclass(frozen=True)
class RooflineRates:
    """The roofline, with these rates of a card: FLOP/s of products in one type, bytes/s of its memory."""

    dtype: Dtype
    peak_flops: float
    bandwidth_bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class KernelTimes:
    """The model of kernels, with these rates of a card, and the factor up and down of its interval.

    `gaps` are where the run lies outside the evidence: `steps` published step times on `cards` kinds of card.
    `host_share` is the host's time in parts of a step's, near one if the card waits for it; `beside_share` is what
    the start and the checkpoints take of the whole run.
    """

    dtype: Dtype
    peak_flops: float
    bandwidth_bytes_per_s: float
    factor: float
    gaps: tuple[Gap, ...]
    steps: int
    cards: int
    host_share: float = 0.0
    beside_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class CalibratedTimes:
    """Kernels that `ftbench calibrate` measured, the factor up and down, and the cells that it rests on.

    `threads` are those of a CPU; None for a card.
    """

    torch: str
    factor: float
    cells: int
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class OneDevice:
    """The time, on one device."""


@dataclasses.dataclass(frozen=True)
class HourlyPrice:
    """The device-hours times a price; `listed` is the list price that it is, None if it was given."""

    usd_per_hour: float
    listed: ListPrice | None = None


@dataclasses.dataclass(frozen=True)
class MeasuredPower:
    """The time times the median power of measured runs."""

    watts: float


@dataclasses.dataclass(frozen=True)
class TracedOnCpu:
    """Predicted from a trace, for a CPU."""


@dataclasses.dataclass(frozen=True)
class PredictedForCard:
    """Predicted for a card; `counter` is what counts this kind of memory."""

    counter: Literal["requests", "torch.cuda", "NVML"]


@dataclasses.dataclass(frozen=True)
class CurveOfRuns:
    """A learning curve; `fixed` has the settings of its cells that are not the run's."""

    sizes: int
    largest_size: int
    train_size: int
    fixed: Mapping[str, Any]
    weak: tuple[fits.Weakness, ...] = ()


Source = (
    RunsFit
    | RooflineRates
    | KernelTimes
    | CalibratedTimes
    | OneDevice
    | HourlyPrice
    | MeasuredPower
    | TracedOnCpu
    | PredictedForCard
    | CurveOfRuns
)

# Why a figure is absent


@dataclasses.dataclass(frozen=True)
class NotMeasured:
    """No run measured it."""


@dataclasses.dataclass(frozen=True)
class NoSuchRun:
    """No run of its kind was measured."""


@dataclasses.dataclass(frozen=True)
class NoSimilarRun:
    """All runs differ from it in more than fits can bridge; `nearest` are the differences of the nearest one."""

    nearest: tuple[SettingDifference, ...]


@dataclasses.dataclass(frozen=True)
class NoTrustedRun:
    """No run of its kind has figures to be trusted."""


@dataclasses.dataclass(frozen=True)
class SameInAllCells:
    """The figure is the same in all measured cells, so its growth beyond them is not known."""


@dataclasses.dataclass(frozen=True)
class UntestedBeyond:
    """It lies outside the measured cells, and these are too few to test a law beyond them."""


@dataclasses.dataclass(frozen=True)
class NotPredicted:
    """It was not predicted; `message` says why, empty if it was not tried."""

    message: str = ""


@dataclasses.dataclass(frozen=True)
class CardSpeedUnknown:
    """The catalogue has no rates for a card."""

    gpu: str


@dataclasses.dataclass(frozen=True)
class RateUnknown:
    """The catalogue has no FLOP/s of a card in one type, but in others."""

    gpu: str
    dtype: Dtype
    known: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NoPrice:
    """No price per hour was given."""


@dataclasses.dataclass(frozen=True)
class NoEnergy:
    """The device's runs did not measure energy."""


@dataclasses.dataclass(frozen=True)
class NoRunOnDevice:
    """No run on this device was measured."""


@dataclasses.dataclass(frozen=True)
class NotCalibrated:
    """The calibration does not have all kernels of the run, or the run has several processes."""


@dataclasses.dataclass(frozen=True)
class FollowsFromTime:
    """It follows from time, which is absent itself."""

    why: Absence


Absence = (
    fits.Reason
    | NotMeasured
    | NoSuchRun
    | NoSimilarRun
    | NoTrustedRun
    | SameInAllCells
    | UntestedBeyond
    | NotPredicted
    | CardSpeedUnknown
    | RateUnknown
    | NoPrice
    | NoEnergy
    | NoRunOnDevice
    | NotCalibrated
    | FollowsFromTime
)

# Notes


@dataclasses.dataclass(frozen=True)
class WeakFit:
    """A fit behind an estimate failed checks."""

    cost: str
    weak: tuple[fits.Weakness, ...]


@dataclasses.dataclass(frozen=True)
class NoTimeFromRuns:
    """Runs on this card give no time, so that it is predicted."""

    why: Absence


@dataclasses.dataclass(frozen=True)
class MayNotFit:
    """The run does not fit into the card's memory, or it is too close to call."""

    certain: bool


@dataclasses.dataclass(frozen=True)
class TimeFromRoofline:
    """A time of this estimate is the roofline's."""


@dataclasses.dataclass(frozen=True)
class TimeFromKernels:
    """A time of this estimate is the model's of kernels."""


@dataclasses.dataclass(frozen=True)
class CalibratedWithOtherTorch:
    """A calibration was made with another torch than the one that predicts here."""

    calibrated: str
    here: str


@dataclasses.dataclass(frozen=True)
class NoRunFinished:
    """No run of a directory has finished."""

    folder: str


@dataclasses.dataclass(frozen=True)
class OtherWorkload:
    """A run directory is left out: its workload differs."""

    folder: str
    difference: SettingDifference


@dataclasses.dataclass(frozen=True)
class DamagedRecords:
    """Records of a run directory that cannot be read."""

    count: int
    folder: str


@dataclasses.dataclass(frozen=True)
class RunsUntrusted:
    """Runs of a directory with figures that cannot be right; they are left out."""

    count: int
    finished: int
    folder: str


@dataclasses.dataclass(frozen=True)
class TooFewExamples:
    """The data has fewer examples than the run would train on."""

    pool: int
    train_size: int


@dataclasses.dataclass(frozen=True)
class FromPrediction:
    """A note of the prediction, as it was said."""

    message: str


Note = (
    Outside
    | WeakFit
    | NoTimeFromRuns
    | MayNotFit
    | TimeFromRoofline
    | TimeFromKernels
    | CalibratedWithOtherTorch
    | NoRunFinished
    | OtherWorkload
    | DamagedRecords
    | RunsUntrusted
    | TooFewExamples
    | FromPrediction
)
