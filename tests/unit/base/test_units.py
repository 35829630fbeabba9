import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.base.units import (
    byte_unit,
    counted,
    format_bytes,
    format_flops,
    format_ratio,
    format_seconds,
    parse_bytes,
    three_digits,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GiB", 4 * 2**30), ("512 MB", 512_000_000), ("1048576", 2**20), ("1.5kib", 1536), ("0", 0)],
)
def test_parse_bytes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "GiB", "4 parsecs", "-1GiB", "1e9", "4GiB!", "4GiB 5", "1,5GiB", "1.2.3GiB"]
)
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (300 * 2**20, "300 MiB")],
)
def test_format_bytes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00029, "0.00029"),
        (0.0, "0.000"),
        (0.12345, "0.123"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1,234"),
    ],
)
def test_three_digits(value, text):
    assert three_digits(value) == text


def test_bytes_that_stand_together_have_the_unit_of_the_largest():
    counts = [673 * 2**20, 1659 * 2**20, 300 * 2**10]
    unit = byte_unit(counts)
    assert unit == (2**30, "GiB")
    assert [format_bytes(count, unit) for count in counts] == [
        "0.657 GiB",
        "1.62 GiB",
        "0.00029 GiB",
    ]
    assert format_bytes(12, byte_unit([12, 1000])) == "12 B"
    assert byte_unit([]) == (1, "B")


def test_one_thing_is_no_plural():
    assert [counted(n, "run") for n in (0, 1, 2, 12_000)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "12,000 runs",
    ]


@given(st.integers(0, 2**50))
def test_formatted_bytes_are_right_to_the_digits_shown(count):
    shown = parse_bytes(format_bytes(count))
    assert abs(shown - count) <= max(0.05 * count, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2e-6, "2 µs"),
        (0.0123, "12.3 ms"),
        (0.35, "350 ms"),
        (1.234, "1.23 s"),
        (59.94, "59.9 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_format_rates_and_ratios():
    assert format_flops(1.886e11) == "188.6 GFLOP/s"
    assert format_flops(12.0) == "12 FLOP/s"
    assert format_ratio(1.976) == "1.98x"
