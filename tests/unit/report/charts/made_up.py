"""Fits with known answers, so that a chart's rows can be held against them."""

from ftbench.analysis.comparisons.contrast import separating_axes
from ftbench.analysis.fits.laws import Exponent, Fit, FitGroup, HeldOut, Interval, LearningCurve
from ftbench.analysis.tables.cells_table import cells_table, varying_axes
from ftbench.plan.scores import ACCURACY
from ftbench.report.charts.inputs import ChartInputs
from tests import synthetic

MEASURED = synthetic.records((64, 128, 256), (4, 8), (100, 400), replicates=2, noise=0)


def held_out(kind="interpolation", median=0.012, largest=0.034):
    return HeldOut(kind=kind, cells=4, median_error=median, largest_error=largest, within=1.0)


def step_fit(**changes):
    """Return the true law of a step's time, ten per cent either way."""

    def predict(point):
        value = synthetic.step_seconds(point["max_length"], point["per_device_train_batch_size"])
        return Interval(value, 0.9 * value, 1.1 * value)

    fields = {
        "cost": "step_median_s",
        "law": "t0 + t1*B*S + t2*B*S^2",
        "coefficients": {"t0": Interval(0.05, 0.04, 0.06)},
        "runs": 23,
        "cells": 6,
        "predict": predict,
        "interpolation": held_out(),
        "extrapolation": held_out("extrapolation", 0.051, 0.08),
    }
    return Fit(**(fields | changes))


def exponent(
    cost="step_median_s", axis="max_length", start=128, end=256, low=0.926, high=1.07, fixed=None
):
    """Return a local exponent whose doubling costs 1.9 to 2.1 times, if not told otherwise."""
    fixed = {"per_device_train_batch_size": 8} if fixed is None else fixed
    return Exponent(cost, axis, fixed, start, end, Interval((low + high) / 2, low, high))


def group(*exponents, fixed=None, refused=(), fits=None):
    fits = {"step_median_s": step_fit()} if fits is None else fits
    return FitGroup(fixed or {}, fits, tuple(refused), tuple(exponents))


def learning_curve(**changes):
    """Return the true law of accuracy, known to a hundredth."""

    def accuracy(documents):
        value = synthetic.accuracy(documents)
        return Interval(value, value - 0.01, value + 0.01)

    fields = {
        "fixed": {},
        "floor": Interval(0.08, 0.05, 0.11),
        "a": Interval(1.9, 1.8, 2.0),
        "b": Interval(0.35, 0.3, 0.4),
        "points": {size: (accuracy(size), 3) for size in (100, 400)},
        "score": ACCURACY,
        "predict": accuracy,
        "interpolation": held_out(),
        "extrapolation": None,
    }
    return LearningCurve(**(fields | changes))


def inputs(records=None, **fields):
    of = MEASURED if records is None else records
    table = cells_table(of)
    return ChartInputs(table, separating_axes(table, varying_axes(of)), of, **fields)


def rows(drawing):
    """Return the rows that a drawing shows at first."""
    return drawing.spec["datasets"]["chosen"]
