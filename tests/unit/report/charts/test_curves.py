import dataclasses

import pytest

from bench.analysis.laws import Refusal
from bench.report.charts.curves import curves
from tests import synthetic
from tests.unit.report.charts.made_up import group, held_out, material, rows, step_fit


def figures(of):
    return {figure.name: figure for figure in curves(of)}


def test_a_figure_for_each_axis_that_varies_and_each_cost():
    names = ["step-median-length", "peak-rss-length", "step-median-batch", "peak-rss-batch"]
    assert list(figures(material())) == [*names, "total-documents"]
    one_size = material(synthetic.records((64, 128), (4,), (100,), noise=0))
    assert not figures(one_size).keys() & {"total-documents", "step-median-batch"}


def test_every_run_is_a_point_and_the_fit_a_line_with_its_band():
    found = figures(material(groups=(group(),)))["step-median-length"].drawing
    runs = [row for row in rows(found) if row["kind"] == "run"]
    assert len(runs) == 3 * 2 * 2  # lengths, batches, replicates; documents are chosen
    assert {row["series"] for row in runs} == {"4", "8"}
    (at,) = (r for r in rows(found) if r["kind"] == "fit" and r["series"] == "8" and r["x"] == 128)
    true = synthetic.step_seconds(128, 8) * 1000
    assert at["y"] == pytest.approx(true, rel=1e-5)
    assert (at["low"], at["high"]) == pytest.approx((0.9 * true, 1.1 * true), rel=1e-5)


def test_without_a_fit_lines_join_the_medians_and_there_is_no_band():
    figure = figures(material())["step-median-length"]
    line = [row for row in rows(figure.drawing) if row["kind"] == "fit" and row["series"] == "4"]
    assert [row["x"] for row in line] == [64, 128, 256]
    assert not any("low" in row for row in line)
    assert "area" not in str(figure.drawing.spec)
    assert "Lines join the medians." in figure.caption


def test_the_errors_on_cells_left_out_stand_beside_the_fit():
    said = figures(material(groups=(group(),)))["step-median-length"].caption
    assert "off by 1.2% on cells inside and 5.1% on the largest cells (median)" in said


def test_a_weak_fit_and_a_refused_one_are_said_in_words():
    weak = group(fits={"step_median_s": step_fit(weak="the median error is 30 %")})
    assert (
        "A weak fit: the median error is 30 %"
        in figures(material(groups=(weak,)))["step-median-length"].caption
    )
    refused = group(fits={}, refused=[Refusal("step_median_s", "3 cells, 5 are needed")])
    said = figures(material(groups=(refused,)))["step-median-length"].caption
    assert "No fit: 3 cells, 5 are needed. Lines join the medians." in said


def test_a_fit_is_that_of_its_own_group():
    other = group(held={"attn_implementation": "eager"})
    found = figures(material(groups=(other,)))["step-median-length"].drawing
    assert not any("low" in row for row in rows(found))


def test_no_more_series_than_there_are_colours_and_the_caption_says_so():
    many = material(synthetic.records((64, 128), tuple(range(1, 11)), (100,), noise=0))
    figure = figures(many)["step-median-length"]
    assert {row["series"] for row in rows(figure.drawing)} == {"1", "3", "5", "6", "8", "10"}
    assert "6 of 10 are drawn." in figure.caption


def test_colours_tell_methods_apart_before_batches():
    of = material()
    kernels = ["eager", "sdpa"] * (len(of.table) // 2)
    table = of.table.assign(attn_implementation=kernels)
    both = dataclasses.replace(of, table=table, axes=[*of.axes, "attn_implementation"])
    found = figures(both)["step-median-length"].drawing
    assert {row["series"] for row in rows(found)} == {"eager", "sdpa"}


def test_several_groups_send_the_reader_to_the_table():
    two = (group(held={"method": "full"}), group(held={"method": "lora"}))
    assert (
        "the table of laws has their errors"
        in figures(material(groups=two))["step-median-length"].caption
    )


def test_a_fit_without_left_out_cells_claims_no_error():
    fit = step_fit(interpolation=None, extrapolation=held_out("extrapolation", 0.2))
    said = figures(material(groups=(group(fits={"step_median_s": fit}),)))[
        "step-median-length"
    ].caption
    assert "off by 20.0% on the largest cells" in said
    assert "inside" not in said
