"""Answers: single figures of a run that was not made, each with its interval and its source."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.analysis.fits.laws import Fit, Interval, LearningCurve, Refusal
from ftbench.base.units import SECONDS_PER_HOUR
from ftbench.estimation.calibrated_run import factor_of_cells, run_seconds
from ftbench.estimation.calibrated_time import MeasuredSpeed
from ftbench.estimation.card_speed import speed_of
from ftbench.estimation.evidence import Curves, Evidence, fixed_differences
from ftbench.estimation.prices import Price
from ftbench.estimation.reasons import (
    Absence,
    CalibratedTimes,
    CurveOfRuns,
    FollowsFromTime,
    HourlyPrice,
    KernelTimes,
    MeasuredPower,
    NoEnergy,
    NoPrice,
    NoRunOnDevice,
    NoSuchRun,
    Note,
    NotPredicted,
    OneDevice,
    Outside,
    RooflineRates,
    RunsFit,
    SameInAllCells,
    Source,
    UntestedBeyond,
    WeakFit,
)
from ftbench.estimation.roofline import Rates, job_seconds, rates_of
from ftbench.estimation.run_time import RunOnCard, has_kernels, run_times
from ftbench.estimation.time_constants import load_time_evidence
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.schedule import Schedule, schedule_of
from ftbench.plan.scores import ACCURACY
from ftbench.records.calibration import Calibration
from ftbench.records.prediction import CellPrediction, CellWork, PredictedBytes

# The kind of an interval: it holds 95 of 100 runs; it holds 90 of 100 published steps of sources that were left
# out of the fit; nothing can lie outside; nothing that the allocator's rules allow lies outside; or there is
# one value.
Meaning = Literal["95 %", "90 %", "calibrated", "bounds", "simulated", "exact"]


@dataclasses.dataclass(frozen=True)
class EstimatedFigure:
    """One figure: a value, its interval, the kind of interval and its source.

    Without a value, `absent` is the reason. `name` ends in the unit: `time_s`, `reserved_bytes`, `cost_usd`.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: Meaning | None = None
    source: Source | None = None
    absent: Absence | None = None

    def times(self, name: str, factor: float | Interval, source: Source) -> EstimatedFigure:
        """Return another figure that is this one times a factor; absent if this one is."""
        if self.value is None or self.low is None or self.high is None:
            assert self.absent is not None
            follows = isinstance(self.absent, FollowsFromTime)
            why = self.absent if follows else FollowsFromTime(self.absent)
            return EstimatedFigure(name, absent=why)
        by = Interval(factor, factor, factor) if isinstance(factor, float) else factor
        return dataclasses.replace(
            self,
            name=name,
            value=self.value * by.value,
            low=self.low * by.low,
            high=self.high * by.high,
            source=source,
        )


def costs(
    time: EstimatedFigure, price: Price | None, evidence: Evidence | None
) -> list[EstimatedFigure]:
    """Return time, and the figures that follow from it."""
    hours = time.times("device_hours", 1 / SECONDS_PER_HOUR, OneDevice())
    cost = EstimatedFigure("cost_usd", absent=NoPrice())
    if price is not None:
        paid = HourlyPrice(price.usd_per_hour, price.listed)
        cost = hours.times("cost_usd", float(price.usd_per_hour), paid)
    power = evidence.power() if evidence else None
    energy = EstimatedFigure("energy_j", absent=NoEnergy() if evidence else NoRunOnDevice())
    if power is not None:
        energy = time.times("energy_j", power, MeasuredPower(power.value))
    return [time, hours, cost, energy]


def measured_time(cell: Cell, evidence: Evidence) -> tuple[EstimatedFigure, list[Note]]:
    """Return the time of a run by the fit of measured ones, with notes."""
    fit = evidence.fit("total_s")
    if not isinstance(fit, Fit):
        return EstimatedFigure("time_s", absent=fit), []
    return from_fit("time_s", fit, cell, evidence), _notes(fit, evidence)


def from_fit(name: str, fit: Fit, cell: Cell, evidence: Evidence) -> EstimatedFigure:
    """Return a figure by a fit of measured runs; `name` says which of them it is here.

    A law is exact only among the cells that it was fitted to. If the peak is the same in all of them
    (the optimizer's, as in small steps), they do not show from where on another moment's is higher: then
    there is no answer beyond them.
    """
    outside = outside_of(fit, evidence)
    if outside and not _grows(fit):
        return EstimatedFigure(name, absent=SameInAllCells())
    if outside and fit.extrapolation is None:
        return EstimatedFigure(name, absent=UntestedBeyond())
    found = fit.predict(point_of(cell))
    tested = fit.extrapolation if outside else fit.interpolation
    return EstimatedFigure(
        name,
        found.value,
        found.low,
        found.high,
        "exact" if fit.exact and not outside else "95 %",
        RunsFit(fit.runs, tested, extrapolated=bool(outside)),
    )


def outside_of(fit: Fit, evidence: Evidence) -> list[Outside]:
    """Return the axes of a law on which a cell lies outside the measured values."""
    return [one for one in evidence.outside if one.axis in fit.axes]


def _grows(fit: Fit) -> bool:
    """Return whether a law has more than constants, by their names in `regression.Law`."""
    slopes = [
        value
        for name, value in fit.coefficients.items()
        if name != "floor" and not name.endswith("0")
    ]
    return not fit.coefficients or any(slope.value > 0 for slope in slopes)


def point_of(cell: Cell) -> dict[str, float]:
    """Return a cell as a point that fits of scaling take."""
    job = schedule_of(cell)
    return {
        "max_length": cell.max_length,
        "per_device_train_batch_size": cell.per_device_train_batch_size,
        "train_size": cell.train_size,
        "examples_per_step": cell.examples_per_step,
        "examples_per_epoch": job.examples_per_epoch,
        "epochs": float(cell.settings["num_train_epochs"]),
        "optimizer_steps": job.steps,
        "eval_documents": job.evaluations * job.eval_documents,
        "checkpoints": job.checkpoints,
    }


def _notes(fit: Fit, evidence: Evidence) -> list[Note]:
    """Return the axes on which a cell lies outside the measured values, and the weakness of its fit."""
    return [*evidence.outside, *([WeakFit(fit.cost, fit.weak)] if fit.weak else [])]


def calibrated_time(
    cell: Cell, found: CellPrediction | None, calibration: Calibration
) -> EstimatedFigure | None:
    """Return the time of a run on a calibrated device; None if its kernels were not all measured.

    Products in TF32 were not: the trace and the calibration have float32, which takes a card several times as long.
    """
    device = calibration.device
    in_tf32 = device.kind == "cuda" and bool(cell.settings.get("tf32"))
    if found is None or found.work is None or cell.num_processes > 1 or in_tf32:
        return None
    speed = MeasuredSpeed(calibration)
    job = schedule_of(cell)
    passes = [found.work.step, *([found.work.evaluation] if job.evaluations else [])]
    if not all(map(speed.covers, passes)):
        return None
    factor = factor_of_cells(calibration.cells)
    seconds = run_seconds(job, found.work, speed, factor, found.least_work)
    return EstimatedFigure(
        "time_s",
        seconds.value,
        seconds.low,
        seconds.high,
        "calibrated",
        CalibratedTimes(
            device.torch,
            factor,
            len(calibration.cells),
            device.threads if device.kind == "cpu" else None,
        ),
    )


def card_time(
    cell: Cell,
    gpu: Gpu,
    found: CellPrediction | None,
    refused: NotPredicted,
    calibration: Calibration | None = None,
) -> EstimatedFigure:
    """Return the time of a run on a card that no run was measured on; `refused` is why it has no work.

    With a calibration of such a card it follows from the kernels that were measured. Else, on one card, it is the
    model's of kernels. The roofline's is taken if the shapes of kernels or the card's data sheet are not known, and
    for several processes, whose collectives the model does not have.
    """
    if calibration is not None:
        calibrated = calibrated_time(cell, found, calibration)
        if calibrated is not None:
            return calibrated
    rates = rates_of(gpu, cell)
    if not isinstance(rates, Rates):
        return EstimatedFigure("time_s", absent=rates)
    if found is None or found.work is None:
        return EstimatedFigure("time_s", absent=refused)
    job, card = schedule_of(cell), speed_of(gpu)
    if card is None or cell.num_processes > 1 or not has_kernels(found.work):
        return _roofline_time(job, found.work, rates, found.least_work)
    (time,) = run_times([RunOnCard(job, found.work, rates, card, found.least_work)])
    known = load_time_evidence()
    return EstimatedFigure(
        "time_s",
        time.seconds.value,
        time.seconds.low,
        time.seconds.high,
        "90 %",
        KernelTimes(
            dtype=rates.dtype,
            peak_flops=rates.peak_flops,
            bandwidth_bytes_per_s=rates.bandwidth_bytes_per_s,
            factor=time.factor,
            gaps=time.gaps,
            steps=known.steps,
            cards=known.cards,
            host_share=time.host_share,
            beside_share=time.beside_share,
        ),
    )


def _roofline_time(
    job: Schedule, work: CellWork, rates: Rates, least: CellWork | None
) -> EstimatedFigure:
    seconds = job_seconds(job, work, rates, least=least)
    return EstimatedFigure(
        "time_s",
        seconds.value,
        seconds.low,
        seconds.high,
        "bounds",
        RooflineRates(rates.dtype, rates.peak_flops, rates.bandwidth_bytes_per_s),
    )


def from_prediction(name: str, figure: PredictedBytes, source: Source) -> EstimatedFigure:
    """Return a predicted number of bytes as an answer."""
    meaning: dict[str, Meaning] = {"interval": "bounds", "simulated": "simulated", "exact": "exact"}
    return EstimatedFigure(
        name,
        figure.value_bytes,
        figure.low_bytes,
        figure.high_bytes,
        meaning[figure.certainty],
        source,
    )


def score(cell: Cell, curves: Curves) -> EstimatedFigure:
    """Return the score of a run by the learning curve of its kind, or why there is none.

    All curves are of the cell's length and method; one of its batch size comes before another.
    """
    if not isinstance(curves, tuple):
        return EstimatedFigure(ACCURACY.name, absent=curves)
    if not curves:
        return EstimatedFigure(ACCURACY.name, absent=NoSuchRun())
    ordered = sorted(curves, key=lambda one: len(fixed_differences(one.fixed, cell)))
    for one in ordered:
        if isinstance(one, LearningCurve):
            return _on_curve(cell, one)
    first = ordered[0]
    assert isinstance(first, Refusal)
    return EstimatedFigure(first.cost.removeprefix("eval_"), absent=first.reason)


def _on_curve(cell: Cell, curve: LearningCurve) -> EstimatedFigure:
    found = curve.predict(float(cell.train_size))
    least, most = curve.score.bounds
    return EstimatedFigure(
        curve.score.name,
        found.value,
        max(found.low, least),
        min(found.high, most),
        "95 %",
        CurveOfRuns(
            sizes=len(curve.points),
            largest_size=max(curve.points),
            train_size=cell.train_size,
            fixed=fixed_differences(curve.fixed, cell),
            weak=curve.weak,
        ),
    )
