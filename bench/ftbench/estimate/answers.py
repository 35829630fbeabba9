"""Answers: single figures of a run that was not made, each with its interval and where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from ftbench.analysis.fits.laws import Fit, Interval, LearningCurve, Refusal
from ftbench.base.units import SECONDS_PER_HOUR, format_ratio
from ftbench.estimate.evidence import Evidence, Outside, held_differences
from ftbench.estimate.roofline import job_seconds, rates_of
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
from ftbench.plan.schedule import schedule_of
from ftbench.plan.scores import ACCURACY
from ftbench.records.prediction import CellPrediction, PredictedBytes

_FOLLOWS = "it follows from time: "

# What an interval is: it holds 95 of 100 runs; what can be is between the two; what can be, by the allocator's
# own rules; or nothing is open.
Meaning = Literal["95 %", "bounds", "simulated", "exact"]


@dataclasses.dataclass(frozen=True)
class EstimatedFigure:
    """One figure: a value, its interval, what kind of interval that is and where it comes from.

    Without a value, `absent` says why. `name` ends in the unit: `time_s`, `reserved_bytes`, `cost_usd`.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: Meaning | None = None
    source: str = ""
    absent: str = ""

    def times(self, name: str, factor: float | Interval, source: str) -> EstimatedFigure:
        """Return another figure that is this one times a factor; absent where this one is."""
        if self.value is None or self.low is None or self.high is None:
            return EstimatedFigure(name, absent=f"{_FOLLOWS}{self.absent.removeprefix(_FOLLOWS)}")
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
    time: EstimatedFigure, usd_per_hour: float | None, evidence: Evidence | None
) -> list[EstimatedFigure]:
    """Return time and what follows from it."""
    hours = time.times("device_hours", 1 / SECONDS_PER_HOUR, "time on one device")
    cost = EstimatedFigure("cost_usd", absent="no --usd-per-hour was given")
    if usd_per_hour is not None:
        cost = hours.times("cost_usd", float(usd_per_hour), f"hours x {usd_per_hour:g} USD")
    power = evidence.power() if evidence else None
    energy = EstimatedFigure(
        "energy_j",
        absent="its runs did not measure energy"
        if evidence
        else "no run on this device was measured",
    )
    if power is not None:
        energy = time.times("energy_j", power, f"time x the {power.value:.0f} W of measured runs")
    return [time, hours, cost, energy]


def measured_time(cell: Cell, evidence: Evidence) -> tuple[EstimatedFigure, list[str]]:
    """Return the time of a run by the fit of measured ones, and what must be known about it."""
    fit = evidence.fit("total_s")
    if isinstance(fit, Refusal):
        return EstimatedFigure("time_s", absent=fit.reason), []
    return from_fit("time_s", fit, cell, evidence), _warnings(fit, evidence)


def from_fit(name: str, fit: Fit, cell: Cell, evidence: Evidence) -> EstimatedFigure:
    """Return a figure by a fit of measured runs; `name` says which of them it is here.

    A law is exact among the cells that it was read from only. Where the peak is the same in all of them
    (the optimizer's, as in small steps), nothing in them shows when another moment overtakes it: then
    there is no answer beyond them.
    """
    outside = outside_of(fit, evidence)
    if outside and not _grows(fit):
        return EstimatedFigure(
            name, absent="it is the same in all measured cells: how it grows is not seen"
        )
    if outside and fit.extrapolation is None:
        return EstimatedFigure(name, absent=_UNTESTED)
    found = fit.predict(point_of(cell))
    held = fit.extrapolation if outside else fit.interpolation
    error = f", off by {held.median_error:.1%} on held-out cells ({held.kind})" if held else ""
    beyond = "extrapolated: " if outside else ""
    return EstimatedFigure(
        name,
        found.value,
        found.low,
        found.high,
        "exact" if fit.exact and not outside else "95 %",
        f"{beyond}fit of {fit.runs} measured runs{error}",
    )


_UNTESTED = (
    "it lies outside the measured cells, which are too few to hold the largest out: how far off a law is"
    " there is not known"
)


def outside_of(fit: Fit, evidence: Evidence) -> list[Outside]:
    """Return the axes of a law on which a cell lies outside of what was measured."""
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


def _warnings(fit: Fit, evidence: Evidence) -> list[str]:
    """Return where a cell lies outside of what was measured, and what is weak about its fit."""
    notes = [
        f"{outside.axis} {outside.target:,.0f} lies outside the measured {_range(outside.low, outside.high)}:"
        f" extrapolated {format_ratio(outside.factor)}"
        for outside in evidence.outside
    ]
    if fit.weak:
        notes.append(f"the fit of time is weak: {fit.weak}")
    return notes


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def roofline_time(
    cell: Cell, gpu: Gpu, found: CellPrediction | None, refused: str
) -> EstimatedFigure:
    """Return the time of a run on a card that none was measured on; `refused` is why it has no work."""
    rates = rates_of(gpu, cell.settings)
    if isinstance(rates, Refusal):
        return EstimatedFigure("time_s", absent=rates.reason)
    if found is None or found.work is None:
        return EstimatedFigure("time_s", absent=refused)
    seconds = job_seconds(schedule_of(cell), found.work, rates, least=found.least_work)
    return EstimatedFigure(
        "time_s",
        seconds.value,
        seconds.low,
        seconds.high,
        "bounds",
        f"roofline, not measured: {rates.peak_flops / 1e12:g} TFLOP/s {rates.dtype},"
        f" {rates.bandwidth_bytes_per_s / 1e9:g} GB/s",
    )


def from_prediction(name: str, figure: PredictedBytes, source: str) -> EstimatedFigure:
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


def score(cell: Cell, curves: Sequence[LearningCurve | Refusal]) -> EstimatedFigure:
    """Return the score of a run by the learning curve of its kind, or why there is none.

    All curves are of the cell's length and method; one of its batch size comes before another.
    """
    if not curves:
        return EstimatedFigure(ACCURACY.name, absent="no run of its kind was measured")
    ordered = sorted(curves, key=lambda one: len(held_differences(one.held, cell)))
    for one in ordered:
        if isinstance(one, LearningCurve):
            return _on_curve(cell, one)
    first = ordered[0]
    assert isinstance(first, Refusal)
    return EstimatedFigure(first.cost.removeprefix("eval_"), absent=first.reason)


def _on_curve(cell: Cell, curve: LearningCurve) -> EstimatedFigure:
    found = curve.predict(float(cell.train_size))
    most = max(curve.points)
    factor = cell.train_size / most
    beyond = (
        f"extrapolated {format_ratio(factor)} beyond {most:,} training examples: "
        if factor > 1
        else ""
    )
    differences = held_differences(curve.held, cell)
    other = f", measured at {', '.join(differences)}" if differences else ""
    weak = f"; weak: {curve.weak}" if curve.weak else ""
    least, most_of_all = curve.score.bounds
    return EstimatedFigure(
        curve.score.name,
        found.value,
        max(found.low, least),
        min(found.high, most_of_all),
        "95 %",
        f"{beyond}learning curve of {len(curve.points)} sizes{other}{weak}",
    )
