import dataclasses

import pytest

from ftbench.analysis.fits.laws import Refusal
from ftbench.analysis.fits.reasons import CellsTooAlike, NoneHeldOut
from ftbench.report.charts.curves import curves
from tests import synthetic
from tests.factories import cell, record
from tests.unit.report.charts.made_up import MEASURED, group, held_out, inputs, rows, step_fit


def figures(of):
    return {figure.name: figure for figure in curves(of)}


def test_a_figure_for_each_axis_that_varies_and_each_cost():
    names = ["step-median-length", "peak-rss-length", "step-median-batch", "peak-rss-batch"]
    assert list(figures(inputs())) == [*names, "total-training-examples"]
    one_size = inputs(synthetic.records((64, 128), (4,), (100,), noise=0))
    assert not figures(one_size).keys() & {"total-training-examples", "step-median-batch"}


def test_every_run_is_a_point_and_the_fit_a_line_with_its_band():
    found = figures(inputs(groups=(group(),)))["step-median-length"].drawing
    runs = [row for row in rows(found) if row["kind"] == "run"]
    assert len(runs) == 3 * 2 * 2  # lengths, batches, replicates; training examples are chosen
    assert {row["series"] for row in runs} == {"4", "8"}
    (at,) = (r for r in rows(found) if r["kind"] == "fit" and r["series"] == "8" and r["x"] == 128)
    true = synthetic.step_seconds(128, 8) * 1000
    assert at["y"] == pytest.approx(true, rel=1e-5)
    assert (at["low"], at["high"]) == pytest.approx((0.9 * true, 1.1 * true), rel=1e-5)


def test_without_a_fit_lines_join_the_medians_and_there_is_no_band():
    figure = figures(inputs())["step-median-length"]
    line = [row for row in rows(figure.drawing) if row["kind"] == "fit" and row["series"] == "4"]
    assert [row["x"] for row in line] == [64, 128, 256]
    assert not any("low" in row for row in line)
    assert "area" not in str(figure.drawing.spec)
    assert "Lines join the medians." in figure.caption


def test_the_errors_on_cells_left_out_stand_beside_the_fit():
    said = figures(inputs(groups=(group(),)))["step-median-length"].caption
    assert "off by 1.2% on cells inside and 5.1% on the largest cells (median)" in said


def steps_of(record, low, high):
    """Return a record whose median step time has these ends, in seconds."""
    measured = record.measurement
    steps = measured.steps.model_copy(update={"median_low_s": low, "median_high_s": high})
    return record.model_copy(update={"measurement": measured.with_rank(steps=steps)})


def test_a_step_time_has_the_interval_of_its_run_as_a_bar():
    of = [steps_of(one, 0.1, 2.5) for one in MEASURED[:-1]]
    by_name = figures(inputs([*of, MEASURED[-1]]))
    found = by_name["step-median-length"].drawing
    runs = [row for row in rows(found) if row["kind"] == "run"]
    assert {(row["least"], row["most"]) for row in runs} == {(100, 2500)}
    assert "least" in str(found.spec["layer"])
    assert "bars" in by_name["step-median-length"].caption
    for name in ("peak-rss-length", "total-training-examples"):
        assert not any("least" in row for row in rows(by_name[name].drawing))
        assert "bars" not in by_name[name].caption


def test_an_interval_of_no_width_is_no_bar():
    figure = figures(inputs())["step-median-length"]
    assert not any("least" in row for row in rows(figure.drawing))
    assert "bars" not in figure.caption


def test_a_weak_fit_and_a_refused_one_are_said_in_words():
    weak = group(fits={"step_median_s": step_fit(weak=(NoneHeldOut(),))})
    assert (
        "A weak fit: too few cells to hold any out"
        in figures(inputs(groups=(weak,)))["step-median-length"].caption
    )
    refused = group(fits={}, refused=[Refusal("step_median_s", CellsTooAlike())])
    said = figures(inputs(groups=(refused,)))["step-median-length"].caption
    assert (
        "No fit: the lengths and batches differ too little to tell the terms of a law apart."
        in said
    )
    assert said.endswith("Lines join the medians.")


def test_a_fit_is_that_of_its_own_group():
    other = group(fixed={"attn_implementation": "eager"})
    found = figures(inputs(groups=(other,)))["step-median-length"].drawing
    assert not any("low" in row for row in rows(found))


def test_no_more_series_than_there_are_colours_and_the_caption_says_so():
    many = inputs(synthetic.records((64, 128), tuple(range(1, 11)), (100,), noise=0))
    figure = figures(many)["step-median-length"]
    assert {row["series"] for row in rows(figure.drawing)} == {"1", "3", "5", "6", "8", "10"}
    assert "6 of 10 are drawn." in figure.caption


def test_colours_tell_methods_apart_before_batches():
    of = inputs()
    kernels = ["eager", "sdpa"] * (len(of.table) // 2)
    table = of.table.assign(attn_implementation=kernels)
    both = dataclasses.replace(of, table=table, axes=[*of.axes, "attn_implementation"])
    found = figures(both)["step-median-length"].drawing
    assert {row["series"] for row in rows(found)} == {"eager", "sdpa"}


def with_methods(*groups):
    """Return cells that were run with both methods, and these groups' fits."""
    of = inputs(groups=groups)
    table = of.table.assign(method=["full", "lora"] * (len(of.table) // 2))
    return dataclasses.replace(of, table=table, axes=[*of.axes, "method"])


def test_several_groups_send_the_reader_to_the_table():
    both = with_methods(group(fixed={"method": "full"}), group(fixed={"method": "lora"}))
    said = figures(both)["step-median-length"].caption
    assert "the table of laws has their errors." in said
    assert "join the medians" not in said


def test_lines_without_a_fit_are_not_called_one():
    figure = figures(with_methods(group(fixed={"method": "full"})))["step-median-length"]
    fits = [row for row in rows(figure.drawing) if row["kind"] == "fit"]
    assert {row["series"] for row in fits if "low" in row} == {"full"}
    assert {row["series"] for row in fits if "low" not in row} == {"lora"}
    assert " Lines are the fit, bands its 95 % interval." in figure.caption
    assert figure.caption.endswith(" If there is no fit, lines join the medians.")


def test_a_fit_that_is_not_drawn_is_not_spoken_of():
    other = group(fixed={"attn_implementation": "eager"})
    said = figures(inputs(groups=(other,)))["step-median-length"].caption
    assert said == "Points are runs. Lines join the medians."


def test_two_environments_are_two_lines_each_with_its_own_fit():
    moved = [one.model_copy(update={"environment_id": "elsewhere"}) for one in MEASURED]
    here = MEASURED[0].environment_id
    groups = [group(fixed={"environment_id": name}) for name in (here, "elsewhere")]
    figure = figures(inputs([*MEASURED, *moved], groups=groups))["step-median-length"]
    fits = [row for row in rows(figure.drawing) if row["kind"] == "fit"]
    assert {row["series"] for row in fits} == {here, "elsewhere"}
    assert all("low" in row for row in fits)


def offline():
    """Return the blocks of `profiles/offline.toml`, small: each method has a learning rate of its own."""
    costs = [(n, batch, 64, "full", 5e-5) for n in (64, 128, 256) for batch in (4, 8, 16)]
    accuracy = [(64, 16, size, "full", 5e-5) for size in (100, 200, 800)]
    less = [(64, 16, n, *how) for how in (("head", 1e-3), ("lora", 5e-4)) for n in (200, 800)]
    return [
        record(
            cell(
                max_length=length,
                per_device_train_batch_size=batch,
                train_size=size,
                method=method,
                learning_rate=rate,
            )
        )
        for length, batch, size, method, rate in (*costs, *accuracy, *less)
    ]


def test_colours_are_an_axis_that_varies_in_the_cells_that_are_shown():
    found = figures(inputs(offline()))
    by_length = found["step-median-length"].drawing
    assert {row["series"] for row in rows(by_length)} == {"4", "8", "16"}
    lines = [row for row in rows(by_length) if row["kind"] == "fit"]
    assert all(sum(row["series"] == batch for row in lines) == 3 for batch in ("4", "8", "16"))
    assert not by_length.choices  # there is one, training examples 64 of the method full
    assert {row["series"] for row in rows(found["total-training-examples"].drawing)} == {
        "full",
        "head",
        "lora",
    }


def test_a_fit_without_left_out_cells_claims_no_error():
    fit = step_fit(interpolation=None, extrapolation=held_out("extrapolation", 0.2))
    said = figures(inputs(groups=(group(fits={"step_median_s": fit}),)))[
        "step-median-length"
    ].caption
    assert "off by 20.0% on the largest cells" in said
    assert "inside" not in said
