import pytest

from ftbench.report.charts.scales import (
    log_ticks,
    spacing,
    spread_out,
    titled,
    unit_of,
)


@pytest.mark.parametrize(
    ("figure", "largest", "unit"),
    [
        ("peak_rss_bytes", 2**31, "GiB"),
        ("peak_rss_bytes", 2**29, "MiB"),
        ("step_median_s", 0.4, "ms"),
        ("step_median_s", 4.0, "s"),
        ("total_s", 3000.0, "minutes"),
        ("total_s", 80_000.0, "hours"),
        ("samples_per_s", 400.0, ""),
    ],
)
def test_the_unit_suits_the_largest_value(figure, largest, unit):
    assert unit_of(figure, [largest / 10, largest]).name == unit


def test_a_title_has_its_unit():
    assert titled("step_median_s", unit_of("step_median_s", [0.4])) == "step time (ms)"
    assert titled("peak_rss_bytes", unit_of("peak_rss_bytes", [2**31])) == "peak RSS (GiB)"
    assert titled("samples_per_s", unit_of("samples_per_s", [2.0])) == "samples/s"


def test_values_are_shown_in_their_unit():
    assert unit_of("peak_rss_bytes", [2**31]).of(2**31) == 2.0
    assert unit_of("step_median_s", [0.25]).of(0.25) == 250.0


def test_only_a_wide_span_is_logarithmic():
    assert spacing([1, 2, 7]) == "linear"
    assert spacing([1, 2, 8]) == "log"
    assert spacing([0, 2, 800]) == "linear"  # zero has no logarithm
    assert spacing([]) == "linear"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.13, 3.2], [0.1, 0.2, 0.5, 1, 2, 5]),
        ([1, 10], [1, 2, 5, 10]),
        ([0.3, 90_000], [0.1, 1, 10, 100, 1_000, 10_000, 100_000]),
        ([3, 3], [2, 5]),
    ],
)
def test_a_logarithmic_axis_begins_and_ends_at_a_label(values, ticks):
    found = log_ticks(values)
    assert found[0] <= min(values)
    assert found[-1] >= max(values)
    assert found == ticks


def test_the_ends_are_always_among_those_spread_out():
    assert spread_out(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread_out([1, 2], 4) == [1, 2]
