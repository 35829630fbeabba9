import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from ftbench.analysis.fits.laws import Fit, Interval
from ftbench.analysis.fits.reasons import ColumnsMissing, OneValueOf, TooFewCells
from ftbench.analysis.fits.scaling import (
    WEAK_TIME,
    fit_scaling,
    has_slope,
    scaling_table,
    slope_per_sample,
    with_full_steps,
)
from ftbench.records.predicted_peaks import PredictedPeaks
from tests.factories import cell, measurement, record
from tests.unit.analysis.made_up import AXES, BATCHES, LENGTHS, memory_bytes, step_s, table

SIZES = (100, 400)


def point(length, batch, documents=100):
    return dict(zip(AXES, (length, batch, documents), strict=True))


def only(groups):
    assert len(groups) == 1
    return groups[0]


# The table of runs.


def counted(**counts):
    """Return a measurement whose phases have counts."""
    measured = measurement()
    phases = {
        name: phase.model_copy(update=counts.get(name, {}))
        for name, phase in measured.phases.items()
    }
    return measured.with_rank(phases=phases)


def test_what_costs_depend_on_is_in_the_table():
    measured = counted(
        first_steps={"steps": 2}, train={"steps": 10, "samples": 80}, evaluation={"samples": 32}
    )
    row = scaling_table([record(measurement=measured)]).iloc[0]
    assert (row["max_length"], row["per_device_train_batch_size"], row["train_size"]) == (16, 4, 16)
    assert (row["examples_per_step"], row["epochs"], row["optimizer_steps"]) == (4, 3, 12)
    assert (row["eval_documents"], row["eval_size"], row["checkpoints"]) == (32, 8, 3)
    assert (row["total_s"], row["train_s"], row["load_s"]) == (10, 6, 1)
    assert (row["evaluation_s"], row["save_s"], row["step_median_s"]) == (2, 1, 0.5)
    assert row["peak_rss_bytes"] == 2**30
    assert row["seed"] == 42


def test_a_count_that_cells_differ_in_is_an_axis():
    def of(size, length):
        one = cell(max_length=length)
        return one.model_copy(update={"data": one.data.model_copy(update={"eval_size": size})})

    runs = [record(of(size, length)) for size in (8, 16) for length in (16, 32)]
    assert sorted(scaling_table(runs)["eval_size"]) == [8, 8, 16, 16]


def test_accumulated_batches_are_one_step():
    row = scaling_table([record(cell(gradient_accumulation_steps=2))]).iloc[0]
    assert row["examples_per_step"] == 8
    assert row["optimizer_steps"] == 3 * 2  # reckoned, as the phases have no counts


def test_documents_that_are_dropped_are_not_in_an_epoch():
    row = scaling_table([record(cell(train_size=18, dataloader_drop_last=True))]).iloc[0]
    assert (row["train_size"], row["examples_per_epoch"]) == (18, 16)


def test_cells_with_fewer_documents_than_a_step_takes_are_in_no_fit():
    runs = table(noise=0, sizes=SIZES)
    few = runs.assign(examples_per_epoch=2.0, step_median_s=9.0)
    group = only(fit_scaling(pd.concat([runs, few]), AXES))
    assert group.fits["step_median_s"].runs == len(runs)


def test_epochs_are_missing_where_steps_are_limited():
    assert pd.isna(scaling_table([record(cell(max_steps=7))]).iloc[0]["epochs"])


def test_predictions_are_in_the_table():
    predicted = PredictedPeaks(tensors_bytes=7, allocated_bytes=8, reserved_bytes=9)
    row = scaling_table([record(predicted=predicted)]).iloc[0]
    assert row["predicted_tensors_bytes"] == 7
    assert row["predicted_allocated_bytes"] == 8
    assert row["predicted_reserved_bytes"] == 9


def test_runs_that_are_not_trusted_or_failed_are_left_out():
    wrong = record(replicate=1, untrusted={"total_s": "the clock jumped"})
    failed = record(replicate=2, status="timeout", measurement=None)
    assert list(scaling_table([record(), wrong, failed])["replicate"]) == [0]


def test_each_run_is_a_row():
    found = scaling_table([record(), record(replicate=1), record(repeat=1)])
    assert len(found) == 3
    assert sorted(found["seed"]) == [42, 42, 43]


def test_the_same_cells_of_two_run_directories():
    assert len(scaling_table([record(), record(environment_id="0" * 12)])) == 2


def test_no_runs():
    empty = scaling_table([record(status="oom", measurement=None)])
    assert fit_scaling(empty, AXES) == ()


# Fits.


def test_step_time_memory_and_total_are_fitted():
    group = only(fit_scaling(table(noise=0, sizes=SIZES), AXES))
    assert set(group.fits) == {"step_median_s", "total_s", "peak_rss_bytes"}
    assert group.refused == ()
    step = group.fits["step_median_s"]
    assert step.law == "t0 + t1*B*S + t2*B*S^2"
    assert step.coefficients["t2"].value == pytest.approx(1e-6)
    assert step.predict(point(1024, 32)).value == pytest.approx(step_s(1024, 32))
    assert group.fits["peak_rss_bytes"].law == "max(floor, m0 + m1*B*S + m2*B*S^2)"
    assert "step(B, S) = t0 + t1*B*S + t2*B*S^2" in group.fits["total_s"].law
    assert (step.cells, group.fits["total_s"].cells) == (12, 24)
    assert all(fit.weak == () for fit in group.fits.values())


def test_a_total_of_more_documents_and_epochs():
    fit = only(fit_scaling(table(noise=0, sizes=SIZES), AXES)).fits["total_s"]
    seconds = fit.predict(point(256, 16, 3200)).value
    fixed = 0.5 + 0.3 + 1.0 + 400 * (0.001 + 1e-4 * 256)
    assert seconds == pytest.approx(fixed + 1.02 * 3 * 200 * step_s(256, 16))
    more = fit.predict(point(256, 16, 3200) | {"epochs": 6}).value
    assert more == pytest.approx(seconds + 1.02 * 3 * 200 * step_s(256, 16))


def test_repeats_are_no_cells():
    once = only(fit_scaling(table(3), AXES)).fits["step_median_s"]
    thrice = only(fit_scaling(pd.concat([table(3)] * 3), AXES)).fits["step_median_s"]
    assert (thrice.runs, thrice.cells) == (36, 12)
    assert thrice.interpolation == once.interpolation
    for name, interval in once.coefficients.items():
        assert thrice.coefficients[name].low == pytest.approx(interval.low)


def test_every_fit_is_held_against_cells_it_was_not_given():
    for fit in only(fit_scaling(table(1, sizes=SIZES), AXES)).fits.values():
        assert fit.interpolation.kind == "interpolation"
        assert fit.extrapolation.kind == "extrapolation"
        assert 0 < fit.interpolation.median_error < fit.interpolation.largest_error
        # Step time has no documents. The law of RSS is of the most documents, and checked on the others too.
        cells = {"step_median_s": 6, "peak_rss_bytes": 12, "total_s": 18}
        assert fit.extrapolation.cells == cells[fit.cost]


def test_memory_of_more_documents_bends_no_law_and_is_in_its_error():
    """A process of 3,200 documents has 3 % more than one of 100, at the smallest cell."""
    grid = table(noise=0)
    more = grid[(grid["max_length"] == 64) & (grid["per_device_train_batch_size"] == 4)]
    more = more.assign(train_size=3200.0, peak_rss_bytes=1.03 * more["peak_rss_bytes"])
    fit = only(fit_scaling(pd.concat([grid, more]), AXES)).fits["peak_rss_bytes"]
    assert fit.predict(point(64, 4)).value == pytest.approx(memory_bytes(64, 4))
    assert fit.runs == len(grid)
    assert fit.extrapolation.by_axis["train_size"] == pytest.approx(0.03 / 1.03)
    assert fit.extrapolation.by_axis["max_length"] < 1e-6
    wide = fit.predict(point(64, 4, 3200 * 32))
    assert wide.high / wide.value >= 1.03


def test_intervals_hold_the_cells_that_were_left_out():
    runs = table(5, noise=0.1)
    fit = only(fit_scaling(runs, AXES)).fits["step_median_s"]
    at_middle = fit.predict(point(128, 8))
    assert at_middle.high / at_middle.value >= 1 + fit.interpolation.largest_error
    assert at_middle.low < at_middle.value < at_middle.high


def test_intervals_widen_beyond_the_cells():
    fit = only(fit_scaling(table(2), AXES)).fits["step_median_s"]
    widths = [
        interval.high / interval.low
        for interval in (fit.predict(point(s, 16)) for s in (512, 1024, 4096, 16384))
    ]
    assert widths == sorted(widths)
    assert widths[-1] > widths[0]


def test_a_law_that_does_not_hold_is_called_weak():
    runs = table(noise=0)
    runs["step_median_s"] *= np.where(runs["max_length"] == 512, 2.0, 1.0)  # a cliff
    fit = only(fit_scaling(runs, AXES)).fits["step_median_s"]
    (weak,) = (one for one in fit.weak if one.kind == "extrapolation")
    assert weak.median_error == fit.extrapolation.median_error > WEAK_TIME == weak.threshold


def test_three_cells_are_refused():
    group = only(fit_scaling(table(lengths=(64, 128, 256), batches=(8,)), AXES))
    assert group.fits == {}
    assert {refusal.cost for refusal in group.refused} == {
        "step_median_s",
        "total_s",
        "peak_rss_bytes",
    }
    assert {refusal.reason for refusal in group.refused} == {TooFewCells(3, 4)}


def test_a_total_without_its_parts_is_refused():
    group = only(fit_scaling(table().drop(columns=["save_s", "load_s"]), AXES))
    (refusal,) = group.refused
    assert refusal.cost == "total_s"
    assert refusal.reason == ColumnsMissing(("save_s", "load_s"))


def test_one_length_is_said():
    group = only(fit_scaling(table(lengths=(64,), batches=(2, 4, 8, 16, 32)), AXES))
    assert OneValueOf("max_length") in group.fits["step_median_s"].weak


def test_eager_attention_is_quadratic_and_sdpa_is_not():
    eager = table(0, noise=0.002).assign(attn_implementation="eager")
    length, batch = eager["max_length"], eager["per_device_train_batch_size"]
    flat = {
        "step_median_s": step_s(length, batch, (0.05, 4e-4, 0)),
        "peak_rss_bytes": memory_bytes(length, batch, (9e8, 3e5, 0)),
    }
    sdpa = table(1, noise=0.002).assign(attn_implementation="sdpa", **flat)
    groups = fit_scaling(pd.concat([eager, sdpa]), [*AXES, "attn_implementation"])
    assert [group.fixed for group in groups] == [
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa"},
    ]
    for cost, constant in (("step_median_s", "t2"), ("peak_rss_bytes", "m2")):
        assert groups[0].fits[cost].coefficients[constant].low > 0
        assert constant not in groups[1].fits[cost].coefficients


def test_what_costs_nothing_splits_no_group_and_other_settings_do():
    runs = pd.concat([table(0).assign(learning_rate=r, weight_decay=r) for r in (1e-5, 1e-4)])
    assert len(fit_scaling(runs, [*AXES, "learning_rate"])) == 1
    assert len(fit_scaling(runs, [*AXES, "weight_decay"])) == 2


def test_environments_are_groups():
    runs = pd.concat([table(0).assign(environment_id=name) for name in ("a", "b")])
    assert [group.fixed for group in fit_scaling(runs, AXES)] == [
        {"environment_id": "a"},
        {"environment_id": "b"},
    ]
    assert only(fit_scaling(runs[runs["environment_id"] == "a"], AXES)).fixed == {}


# Predicted memory.


def predicted(law=memory_bytes):
    runs = table()[AXES]
    length, batch = runs["max_length"], runs["per_device_train_batch_size"]
    return runs.assign(predicted_tensors_bytes=law(length, batch))


def test_exact_memory_goes_on_exactly():
    group = only(fit_scaling(predicted(), AXES))
    (fit,) = group.fits.values()
    assert fit.exact
    assert fit.weak == ()
    beyond = fit.predict(point(2048, 64))
    assert beyond.value == pytest.approx(float(memory_bytes(2048, 64)), abs=1)
    assert beyond.high - beyond.low < 10_000  # of 174 GB
    assert fit.extrapolation.largest_error < 1e-6
    assert {e.source for e in group.exponents} == {"predictions"}


def test_memory_that_is_a_little_off_is_not_exact():
    def bent(length, batch):
        return memory_bytes(length, batch) * (1 + 1e-3 * (batch == 8))

    (fit,) = only(fit_scaling(predicted(bent), AXES)).fits.values()
    assert not fit.exact


def test_the_slope_in_bytes_a_sample():
    (fit,) = only(fit_scaling(predicted(), AXES)).fits.values()
    assert slope_per_sample(fit, 512).value == pytest.approx(3e5 * 512 + 600 * 512**2)


def test_a_slope_is_told_where_its_piece_sets_the_peak():
    (fit,) = only(fit_scaling(predicted(), AXES)).fits.values()
    assert "floor" in fit.law
    assert has_slope(fit, point(512, 16))
    assert not has_slope(fit, point(64, 4))


def test_whole_fits_hold_one_more_run_and_are_no_wider_than_need_be():
    seen, widths, seeds = 0, [], range(20)
    for seed in seeds:
        fit = only(fit_scaling(table(seed)[[*AXES, "step_median_s"]], AXES)).fits["step_median_s"]
        another = table(seed + 1000).set_index(AXES)["step_median_s"]
        for length in LENGTHS:
            for batch in BATCHES:
                interval = fit.predict(point(length, batch))
                cost = another[(length, batch, 100)]
                seen += interval.low <= cost <= interval.high
                widths.append(interval.high / interval.low)
    assert seen >= 0.93 * len(seeds) * len(LENGTHS) * len(BATCHES)
    # Twice 1.96 standard deviations of one run are a factor of 1.12.
    assert 1.12 < np.median(widths) < 1.30


# Intervals, thresholds and what a point leaves unsaid, by hand


def fit_of(coefficients, predicted=0.0):
    intervals = {name: Interval(*ends) for name, ends in coefficients.items()}
    said = Interval(predicted, predicted, predicted)
    return Fit("peak_rss_bytes", "", intervals, 5, 5, lambda point: said, None, None)


def test_a_slope_has_the_ends_of_its_coefficients():
    fit = fit_of({"m0": (7, 6, 8), "mB": (1, 0, 2), "m1": (10, 9, 11), "m2": (0.5, 0.4, 0.6)})
    assert slope_per_sample(fit, 4) == Interval(*map(pytest.approx, (49, 42.4, 55.6)))
    assert slope_per_sample(fit_of({"m1": (10, 9, 11)}), 4).value == 40


def test_a_slope_is_that_of_the_peak_where_all_of_its_piece_is_the_peak():
    coefficients = {"m0": (7, 6, 8), "mB": (1, 0, 2), "m1": (10, 9, 11), "m2": (0.5, 0.4, 0.6)}
    at = {"max_length": 4, "per_device_train_batch_size": 2}
    own = 7 + 1 * 2 + 10 * 8 + 0.5 * 2 * 16
    assert has_slope(fit_of(coefficients, own), at)
    assert not has_slope(fit_of(coefficients, own * 1.001), at)


def test_a_step_has_as_many_documents_as_it_takes_or_is_in_no_fit():
    runs = pd.DataFrame({"examples_per_epoch": [3, 4, 5], "examples_per_step": 4})
    assert with_full_steps(runs)["examples_per_epoch"].tolist() == [4, 5]
    assert len(with_full_steps(runs[["examples_per_step"]])) == 3


def total_of(runs):
    return only(fit_scaling(runs, AXES)).fits["total_s"]


FIXED = 0.5 + 0.3 + 1.0 + 400 * (0.001 + 1e-4 * 256)


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ({}, 3 * 200),
        ({"epochs": 1.5}, 300),
        ({"optimizer_steps": 70}, 70),
        ({"examples_per_epoch": 1600}, 3 * 100),
        ({"examples_per_step": 32}, 3 * 100),  # two batches of 16 to a step, of twice the work
    ],
)
def test_what_a_point_does_not_say_is_as_in_the_runs(said, steps):
    found = total_of(table(noise=0, sizes=SIZES)).predict(point(256, 16, 3200) | said)
    assert found.value == pytest.approx(FIXED + 1.02 * steps * step_s(256, 16))


def test_evaluations_and_checkpoints_may_be_said():
    fit = total_of(table(noise=0, sizes=SIZES))
    base = fit.predict(point(256, 16, 3200)).value
    more = fit.predict(point(256, 16, 3200) | {"eval_documents": 1400}).value
    assert more - base == pytest.approx(1000 * (0.001 + 1e-4 * 256))
    saves = fit.predict(point(256, 16, 3200) | {"checkpoints": 7}).value
    assert saves - base == pytest.approx(
        (8 / 4 + 7 / 3) / 2 - 1
    )  # see `Alike` in test_total_time.py


def test_batches_are_accumulated_as_in_the_runs():
    runs = table(noise=0, sizes=SIZES)
    runs["examples_per_step"] *= 2
    runs["optimizer_steps"] = 3 * np.ceil(runs["train_size"] / runs["examples_per_step"])
    runs = runs[runs["train_size"] % runs["examples_per_step"] == 0]
    runs["train_s"] = 0.3 + 1.02 * runs["optimizer_steps"] * runs["step_median_s"]
    parts = ["load_s", "train_s", "evaluation_s", "save_s"]
    runs["total_s"] = runs[parts].sum(axis=1)
    found = total_of(runs).predict(point(256, 16, 3200))
    assert found.value == pytest.approx(FIXED + 1.02 * 3 * 100 * step_s(256, 16))


def test_documents_that_make_no_full_batch_are_dropped_as_in_the_runs():
    runs = table(noise=0, sizes=(100, 403))
    runs["examples_per_epoch"] = (
        runs["train_size"] // runs["examples_per_step"] * runs["examples_per_step"]
    )
    runs["optimizer_steps"] = 3 * runs["examples_per_epoch"] / runs["examples_per_step"]
    runs["train_s"] = 0.3 + 1.02 * runs["optimizer_steps"] * runs["step_median_s"]
    runs["total_s"] = runs[["load_s", "train_s", "evaluation_s", "save_s"]].sum(axis=1)
    found = total_of(runs).predict(point(256, 16, 3215))  # 200 batches, and 15 documents
    assert found.value == pytest.approx(FIXED + 1.02 * 3 * 200 * step_s(256, 16))


def test_steps_that_are_limited_are_as_many_at_every_size():
    runs = table(noise=0, sizes=(400, 800)).assign(epochs=np.nan, optimizer_steps=50.0)
    runs["train_s"] = 0.3 + 1.02 * 50 * runs["step_median_s"]
    runs["total_s"] = runs[["load_s", "train_s", "evaluation_s", "save_s"]].sum(axis=1)
    found = total_of(runs).predict(point(256, 16, 3200))
    assert found.value == pytest.approx(FIXED + 1.02 * 50 * step_s(256, 16))


def along_lengths(group, cost):
    """The half-widths of exponents over a doubling of the length, in logarithms of the cost."""
    return {
        round((e.exponent.high - e.exponent.value) * np.log(2), 9)
        for e in group.exponents
        if e.cost == cost and e.axis == "max_length" and e.end == 2 * e.start
    }


def test_without_repeats_an_exponent_has_the_residuals_deviation():
    runs = table(4)
    group = only(fit_scaling(runs, AXES))
    for cost, constants in (("step_median_s", 3), ("total_s", 4)):
        fit = group.fits[cost]
        told = [fit.predict(point(*at)).value for at in runs[AXES].itertuples(index=False)]
        measured = runs[cost].to_numpy()
        off = np.log(told / measured) if cost == "total_s" else told / measured - 1
        freedom = len(runs) - constants
        deviation = np.sqrt((off**2).sum() / freedom)
        (half,) = along_lengths(group, cost)
        assert half == pytest.approx(student_t.ppf(0.975, freedom) * deviation * np.sqrt(2))


@pytest.mark.parametrize(
    ("off", "weak"),
    [
        (0.002, set()),
        (0.02, {"predicted_tensors_bytes"}),
        (0.05, {"predicted_tensors_bytes", "peak_rss_bytes"}),
        (0.2, {"predicted_tensors_bytes", "peak_rss_bytes", "step_median_s"}),
    ],
)
def test_each_kind_of_cost_has_its_threshold(off, weak):
    """Costs that are by turns too large and too small by this share, of which no law knows."""
    runs = table(noise=0)
    sign = np.where(np.arange(len(runs)) % 2, 1, -1) * np.where(
        np.arange(len(runs)) // 3 % 2, 1, -1
    )
    runs["predicted_tensors_bytes"] = runs["peak_rss_bytes"]
    for cost in ("predicted_tensors_bytes", "peak_rss_bytes", "step_median_s"):
        runs[cost] = runs[cost] * (1 + off * sign)
    fits = only(fit_scaling(runs.drop(columns="total_s"), AXES)).fits
    assert {cost for cost, fit in fits.items() if fit.weak} == weak


def test_memory_is_fitted_to_the_size_that_most_runs_have_and_all_cells():
    most = table(noise=0, sizes=(400,), repeats=2)
    few = table(noise=0, sizes=(100,))
    few["peak_rss_bytes"] *= 1.2
    fit = only(fit_scaling(pd.concat([few, most]), AXES)).fits["peak_rss_bytes"]
    assert fit.predict(point(256, 16, 400)).value == pytest.approx(memory_bytes(256, 16))
    assert (fit.runs, fit.cells) == (24, 12)
    # Of as many runs each, the larger size.
    tied = only(fit_scaling(pd.concat([few, table(noise=0, sizes=(400,))]), AXES))
    assert tied.fits["peak_rss_bytes"].predict(point(256, 16)).value == pytest.approx(
        memory_bytes(256, 16)
    )
