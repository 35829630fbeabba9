"""Answers: figures with their interval and their source, or the reason why they are absent."""

import pytest

from ftbench.analysis.fits.laws import Fit, FitGroup, HeldOut, Interval, LearningCurve, Refusal
from ftbench.analysis.fits.reasons import NoneHeldOut, OneValueOf, TooFewCells, TooFewSizes
from ftbench.estimation.answers import (
    EstimatedFigure,
    card_time,
    costs,
    from_fit,
    from_prediction,
    measured_time,
    point_of,
    score,
)
from ftbench.estimation.evidence import Evidence
from ftbench.estimation.prices import Price
from ftbench.estimation.reasons import (
    CurveOfRuns,
    FollowsFromTime,
    HourlyPrice,
    MeasuredPower,
    NoEnergy,
    NoPrice,
    NoRunOnDevice,
    NoSuchRun,
    NotPredicted,
    NoTrustedRun,
    OneDevice,
    Outside,
    RateUnknown,
    RooflineRates,
    RunsFit,
    SameInAllCells,
    TracedOnCpu,
    UntestedBeyond,
    WeakFit,
)
from ftbench.estimation.roofline import job_seconds, rates_of
from ftbench.plan.gpus import find_gpu
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.schedule import schedule_of
from ftbench.plan.scores import ACCURACY
from tests.factories import cell, cell_work, device, figure, predicted_cell

TIME = EstimatedFigure("time_s", 7200.0, 3600.0, 10800.0, "95 %", RunsFit(12, None, False))
INSIDE = HeldOut("interpolation", 9, 0.02, 0.05, 1.0)
BEYOND = HeldOut("extrapolation", 2, 0.11, 0.2, 0.5)


def fit(cost="total_s", **changes):
    """A law by which an example costs a second, give or take a tenth."""
    fields = {
        "cost": cost,
        "law": "n",
        "coefficients": {},
        "runs": 12,
        "cells": 9,
        "predict": lambda point: Interval(
            point["train_size"], 0.9 * point["train_size"], 1.1 * point["train_size"]
        ),
        "interpolation": INSIDE,
        "extrapolation": BEYOND,
        "axes": (*REQUIRED_AXES, "num_train_epochs"),
    }
    return Fit(**(fields | changes))


def evidence(*fits, outside=(), refused=()):
    group = FitGroup({}, {one.cost: one for one in fits}, tuple(refused), ())
    return Evidence(device(), (), group, tuple(outside))


# What follows from time


def test_money_is_hours_times_the_price_at_both_ends():
    time, hours, cost, _ = costs(TIME, Price(0.8), None)
    assert time is TIME
    assert (hours.value, hours.low, hours.high) == pytest.approx((2, 1, 3))
    assert (cost.value, cost.low, cost.high) == pytest.approx((1.6, 0.8, 2.4))
    assert cost.interval == "95 %"
    assert (hours.source, cost.source) == (OneDevice(), HourlyPrice(0.8))


def test_without_a_price_there_is_no_money():
    cost = costs(TIME, None, None)[2]
    assert (cost.value, cost.absent) == (None, NoPrice())


def test_what_follows_from_an_absent_time_is_absent():
    few = TooFewCells(1, 4)
    _, hours, cost, energy = costs(EstimatedFigure("time_s", absent=few), Price(0.8), None)
    assert {one.value for one in (hours, cost, energy)} == {None}
    assert hours.absent == cost.absent == FollowsFromTime(few)


class Powered(Evidence):
    def power(self):
        return Interval(70.0, 50.0, 90.0)


def test_energy_is_time_times_the_power_of_measured_runs():
    energy = costs(TIME, None, Powered(device(), (), None))[3]
    assert (energy.value, energy.low, energy.high) == (7200 * 70, 3600 * 50, 10800 * 90)
    assert energy.source == MeasuredPower(70.0)


def test_energy_that_was_not_measured_is_absent():
    assert costs(TIME, None, evidence())[3].absent == NoEnergy()
    assert costs(TIME, None, None)[3].absent == NoRunOnDevice()


# Time from measured runs


def test_time_is_what_the_fit_gives_with_its_error_on_held_out_cells():
    found, notes = measured_time(cell(train_size=200), evidence(fit()))
    assert (found.value, found.low, found.interval) == (200, 180, "95 %")
    assert found.high == pytest.approx(220)
    assert found.source == RunsFit(12, INSIDE, extrapolated=False)
    assert notes == []


def test_time_beyond_what_was_measured_says_so_and_by_how_much():
    beyond = Outside("train_size", 25_000, 32, 1_000)
    found, notes = measured_time(cell(train_size=25_000), evidence(fit(), outside=[beyond]))
    assert found.source == RunsFit(12, BEYOND, extrapolated=True)
    assert (notes, beyond.factor) == ([beyond], 25)


def test_a_weak_fit_says_which_threshold_it_failed():
    _, notes = measured_time(cell(), evidence(fit(weak=(NoneHeldOut(),))))
    assert notes == [WeakFit("total_s", (NoneHeldOut(),))]


def test_a_fit_that_was_refused_is_absent_with_its_reason():
    few = TooFewCells(2, 4)
    found, notes = measured_time(cell(), evidence(refused=[Refusal("total_s", few)]))
    assert (found.value, found.absent, notes) == (None, few, [])


def test_an_exact_law_is_exact():
    exact = fit("peak_cpu_tensors_bytes", exact=True)
    found = from_fit("peak_cpu_tensors_bytes", exact, cell(), evidence(exact))
    assert found.interval == "exact"


def test_beyond_its_cells_a_law_is_not_exact():
    beyond = evidence(fit(exact=True), outside=[Outside("max_length", 512, 32, 128)])
    assert from_fit("time_s", beyond.group.fits["total_s"], cell(), beyond).interval == "95 %"


def test_a_peak_that_never_moved_says_nothing_beyond_its_cells():
    one = Interval(1e9, 1e9, 1e9)
    flat = fit("peak_cpu_tensors_bytes", coefficients={"m0": one, "m1": Interval(0, 0, 0)})
    beyond = evidence(flat, outside=[Outside("max_length", 512, 32, 128)])
    found = from_fit("peak_cpu_tensors_bytes", flat, cell(), beyond)
    assert found.value is None
    assert found.absent == SameInAllCells()
    assert from_fit("peak_cpu_tensors_bytes", flat, cell(), evidence(flat)).value is not None


def test_a_law_is_not_extrapolated_along_an_axis_that_it_has_not():
    """Memory has no term for training examples: more of them are no step outside of its cells."""
    flat = fit(
        "peak_cpu_tensors_bytes",
        coefficients={"m0": Interval(1e9, 1e9, 1e9)},
        exact=True,
        axes=("max_length", "per_device_train_batch_size"),
    )
    beyond = evidence(flat, outside=[Outside("train_size", 25_000, 32, 1_000)])
    found = from_fit("peak_cpu_tensors_bytes", flat, cell(), beyond)
    assert (found.interval, found.source.extrapolated) == ("exact", False)


def test_beyond_cells_that_are_too_few_to_hold_any_out_there_is_no_answer():
    untested = fit(extrapolation=None)
    beyond = evidence(untested, outside=[Outside("train_size", 25_000, 32, 1_000)])
    found, _ = measured_time(cell(train_size=25_000), beyond)
    assert found.value is None
    assert found.absent == UntestedBeyond()
    assert measured_time(cell(), evidence(untested))[0].value is not None


def test_a_point_has_the_steps_and_evaluations_of_the_job():
    of = cell(train_size=100, num_train_epochs=2)
    assert point_of(of) == {
        "max_length": 16,
        "per_device_train_batch_size": 4,
        "train_size": 100,
        "examples_per_step": 4,
        "examples_per_epoch": 100,
        "epochs": 2.0,
        "optimizer_steps": 50,
        "eval_documents": 3 * 8,
        "checkpoints": 2,
    }


# Time on a card that was not measured


def test_time_without_shapes_of_kernels_is_the_roofline():
    of, gpu = cell(train_size=1000), find_gpu("l4")
    found = card_time(of, gpu, predicted_cell("x", work=cell_work()), NotPredicted())
    expected = job_seconds(schedule_of(of), cell_work(), rates_of(gpu, of))
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.interval == "bounds"
    assert found.source == RooflineRates("fp32", 30.3e12, 300e9)


def test_time_without_work_says_why():
    refused = NotPredicted("no trace")
    assert card_time(cell(), find_gpu("l4"), None, refused).absent == refused
    found = card_time(cell(bf16=True), find_gpu("t4"), predicted_cell("x"), NotPredicted())
    assert isinstance(found.absent, RateUnknown)


@pytest.mark.parametrize(
    ("certainty", "interval"),
    [("exact", "exact"), ("simulated", "simulated"), ("interval", "bounds")],
)
def test_predicted_bytes_keep_their_certainty(certainty, interval):
    found = from_prediction("reserved_bytes", figure(3, 2, 4, certainty), TracedOnCpu())
    mib = 2**20
    assert (found.value, found.low, found.high) == (3 * mib, 2 * mib, 4 * mib)
    assert found.interval == interval


# Accuracy


def curve(fixed=None, **changes):
    """A curve that was measured to 1,000 training examples."""
    flat = Interval(0.1, 0.1, 0.1)
    fields = {
        "fixed": fixed or {},
        "floor": flat,
        "a": flat,
        "b": flat,
        "points": {100: (flat, 3), 1000: (flat, 3)},
        "score": ACCURACY,
        "predict": lambda n: Interval(0.9, 0.85, 1.02),
        "interpolation": None,
        "extrapolation": None,
    }
    return LearningCurve(**(fields | changes))


def test_accuracy_is_that_of_the_curve_and_no_more_than_all():
    found = score(cell(train_size=500), (curve(),))
    assert (found.value, found.low, found.high) == (0.9, 0.85, 1.0)
    assert found.source == CurveOfRuns(2, 1000, 500, {})


def test_accuracy_beyond_the_curve_says_by_how_much():
    weak = (OneValueOf("train_size"),)
    found = score(cell(train_size=25_000), (curve(weak=weak),))
    assert found.source == CurveOfRuns(2, 1000, 25_000, {}, weak)


def test_a_curve_of_the_same_batch_comes_before_another():
    other = curve({"per_device_train_batch_size": 8})
    same = curve({"per_device_train_batch_size": 4}, predict=lambda n: Interval(0.7, 0.6, 0.8))
    assert score(cell(), (other, same)).value == 0.7
    found = score(cell(), (other,))
    assert found.value == 0.9
    assert found.source.fixed == {"per_device_train_batch_size": 8}


def test_a_curve_comes_before_a_refusal():
    assert score(cell(), (Refusal("accuracy", TooFewSizes(2, 4)), curve())).value == 0.9


def test_accuracy_that_cannot_be_told_says_why():
    few = TooFewSizes(2, 4)
    assert score(cell(), (Refusal("accuracy", few),)).absent == few
    assert score(cell(), ()).absent == NoSuchRun()
    assert score(cell(), NoTrustedRun()).absent == NoTrustedRun()
