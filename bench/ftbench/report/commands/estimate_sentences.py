"""The estimate's sentences: sources, reasons for absence, and notes in words. One function per type of value."""

from __future__ import annotations

import functools
from typing import Any

from ftbench.analysis.fits.reasons import Reason as FitReason
from ftbench.analysis.tables.cells_table import ABSENT_SETTING
from ftbench.base.units import counted, format_ratio
from ftbench.estimation import reasons
from ftbench.estimation.reasons import Absence, Note, SettingDifference, Source
from ftbench.estimation.time_interval import LONGEST_ATTENTION, Gap
from ftbench.report.elements.reasons import reason_words, weak_words
from ftbench.report.elements.words import axis_word, cost_word

# Sources


@functools.singledispatch
def source_words(source: Source) -> str:
    """Return where a figure comes from."""
    raise TypeError(type(source))


@source_words.register
def _(source: reasons.RunsFit) -> str:
    beyond = "extrapolated: " if source.extrapolated else ""
    tested = source.held_out
    error = (
        f", off by {tested.median_error:.1%} on held-out cells ({tested.kind})" if tested else ""
    )
    return f"{beyond}fit of {counted(source.runs, 'measured run')}{error}"


@source_words.register
def _(source: reasons.RooflineRates) -> str:
    return (
        f"roofline, not measured: {source.peak_flops / 1e12:g} TFLOP/s {source.dtype},"
        f" {source.bandwidth_bytes_per_s / 1e9:g} GB/s"
    )


_GAPS: dict[Gap, str] = {
    "low-power half": "none in half precision on a card below 100 W",
    "long attention": f"none with fused attention beyond length {LONGEST_ATTENTION}",
    "unknown products": "operators whose products are of unknown shape",
    "host-bound": "the host, which is not known, takes most of the step",
}


@source_words.register
def _(source: reasons.KernelTimes) -> str:
    outside = "".join(f"; wider, since {_GAPS[gap]}" for gap in source.gaps)
    return (
        f"model of kernels, not measured: {source.peak_flops / 1e12:g} TFLOP/s {source.dtype},"
        f" {source.bandwidth_bytes_per_s / 1e9:g} GB/s; a factor of {source.factor:g} up and down,"
        f" from {source.steps} published step times on {source.cards} cards{outside}"
    )


@source_words.register
def _(source: reasons.CalibratedTimes) -> str:
    rests = (
        f"from {counted(source.cells, 'cell')} run with it"
        if source.cells
        else "not checked by cells"
    )
    threads = f" on {counted(source.threads, 'thread')}" if source.threads else ""
    return (
        f"kernels measured by `ftbench calibrate` with torch {source.torch}{threads}; a factor of"
        f" {source.factor:.2f} up and down, {rests}"
    )


@source_words.register
def _(_source: reasons.OneDevice) -> str:
    return "time on one device"


@source_words.register
def _(source: reasons.HourlyPrice) -> str:
    listed = source.listed
    of = f", {listed.source.partition(';')[0]} on {listed.date}" if listed else ""
    return f"hours x {source.usd_per_hour:g} USD{of}"


@source_words.register
def _(source: reasons.MeasuredPower) -> str:
    return f"time x the {source.watts:.0f} W of measured runs"


@source_words.register
def _(_source: reasons.TracedOnCpu) -> str:
    return "traced, on the CPU"


@source_words.register
def _(source: reasons.PredictedForCard) -> str:
    if source.counter == "requests":
        return "predicted, requested by tensors and kernels"
    return f"predicted, as {source.counter} counts"


@source_words.register
def _(source: reasons.CurveOfRuns) -> str:
    factor = source.train_size / source.largest_size
    beyond = (
        f"extrapolated {format_ratio(factor)} beyond {source.largest_size:,} training examples: "
        if factor > 1
        else ""
    )
    fixed = ", ".join(f"{axis_word(name)} {value}" for name, value in source.fixed.items())
    other = f", measured at {fixed}" if fixed else ""
    weak = f"; weak: {weak_words(source.weak)}" if source.weak else ""
    return f"{beyond}learning curve of {counted(source.sizes, 'size')}{other}{weak}"


# Why a figure is absent


@functools.singledispatch
def absence_words(why: Absence) -> str:
    """Return in a sentence why a figure is absent."""
    if isinstance(why, FitReason):
        return reason_words(why)
    raise TypeError(type(why))


@absence_words.register
def _(_why: reasons.NotMeasured) -> str:
    return "no run measured it"


@absence_words.register
def _(_why: reasons.NoSuchRun) -> str:
    return "no run of this kind was measured"


@absence_words.register
def _(why: reasons.NoSimilarRun) -> str:
    return f"no run is similar enough: {'; '.join(map(difference_words, why.nearest))}"


@absence_words.register
def _(_why: reasons.NoTrustedRun) -> str:
    return "no run of this kind has figures to be trusted"


@absence_words.register
def _(_why: reasons.SameInAllCells) -> str:
    return "it is the same in all measured cells, so how it grows beyond them is not known"


@absence_words.register
def _(_why: reasons.UntestedBeyond) -> str:
    return (
        "it lies outside the measured cells, and these are too few to test how far off a law is"
        " there"
    )


@absence_words.register
def _(why: reasons.NotPredicted) -> str:
    return why.message or "it was not predicted"


@absence_words.register
def _(why: reasons.CardSpeedUnknown) -> str:
    return f"the speed of a card of {why.gpu} is not known: name one"


@absence_words.register
def _(why: reasons.RateUnknown) -> str:
    return f"the catalogue has no speed of {why.gpu} in {why.dtype}, only in {', '.join(why.known)}"


@absence_words.register
def _(_why: reasons.NoPrice) -> str:
    return "no --usd-per-hour was given, and the catalogue has no list price"


@absence_words.register
def _(_why: reasons.NoEnergy) -> str:
    return "the runs on this device did not measure energy"


@absence_words.register
def _(_why: reasons.NoRunOnDevice) -> str:
    return "no run on this device was measured"


@absence_words.register
def _(_why: reasons.NotCalibrated) -> str:
    return "the calibration lacks kernels of this run (products in its type), or the run has several processes"


@absence_words.register
def _(why: reasons.FollowsFromTime) -> str:
    return f"it follows from time: {absence_words(why.why)}"


def difference_words(one: SettingDifference) -> str:
    """Return a setting that differs, with both values."""
    of_runs, asked = map(_shown, (one.of_runs, one.asked))
    return f"{axis_word(one.name)} is {of_runs} in the runs, {asked} here"


def _shown(value: Any) -> Any:
    return ABSENT_SETTING if value is None else value


# Notes


@functools.singledispatch
def note_words(note: Note) -> str:
    """Return a note beside an estimate in a sentence."""
    raise TypeError(type(note))


@note_words.register
def _(note: reasons.Outside) -> str:
    low, high = f"{note.low:,.0f}", f"{note.high:,.0f}"
    measured = low if low == high else f"{low} to {high}"
    return (
        f"{axis_word(note.axis)} {note.target:,.0f} lies outside the measured {measured}:"
        f" extrapolated {format_ratio(note.factor)}"
    )


@note_words.register
def _(note: reasons.WeakFit) -> str:
    return f"the fit of {cost_word(note.cost)} is weak: {weak_words(note.weak)}"


@note_words.register
def _(note: reasons.NoTimeFromRuns) -> str:
    return f"runs on this device give no time: {absence_words(note.why)}"


@note_words.register
def _(note: reasons.MayNotFit) -> str:
    if note.certain:
        return "it does not fit: the costs are of a run that ends out of memory"
    return "too close to call: it may run out of memory"


@note_words.register
def _(_note: reasons.TimeFromRoofline) -> str:
    return (
        "roofline: time was not measured on such a card. It follows from the exact FLOPs of the run, the bytes that"
        " its operators move and the speed of the card. No software can be faster than the low end; the value is at"
        " the usual shares of the card's peaks, the high end at the lowest shares that are known"
    )


@note_words.register
def _(_note: reasons.TimeFromKernels) -> str:
    return (
        "time was not measured on such a card. A model computes it from the shapes of the run's kernels and the"
        " card's data sheet, with constants fitted on published step times. The interval held nine of ten step"
        " times from sources that were left out of the fit; its low end is never below the roofline"
    )


@note_words.register
def _(note: reasons.CalibratedWithOtherTorch) -> str:
    return (
        f"the calibration was made with torch {note.calibrated}, and {note.here} is installed here: kernels may"
        " take another time"
    )


@note_words.register
def _(note: reasons.NoRunFinished) -> str:
    return f"no run in {note.folder} has finished"


@note_words.register
def _(note: reasons.OtherWorkload) -> str:
    return (
        f"{note.folder} is left out, its workload is another: {difference_words(note.difference)}"
    )


@note_words.register
def _(note: reasons.DamagedRecords) -> str:
    return f"{counted(note.count, 'record')} in {note.folder} cannot be read"


@note_words.register
def _(note: reasons.RunsUntrusted) -> str:
    return (
        f"{note.count} of {counted(note.finished, 'run')} in {note.folder} left out: figures of them cannot be"
        " right"
    )


@note_words.register
def _(note: reasons.TooFewExamples) -> str:
    return f"the data has {note.pool:,} training examples, fewer than {note.train_size:,}"


@note_words.register
def _(note: reasons.FromPrediction) -> str:
    return note.message
