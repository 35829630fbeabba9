import pytest

from ftbench.analysis.comparisons.contrast import contrast
from ftbench.analysis.fits.laws import Interval
from ftbench.report.elements.table import ABSENT
from ftbench.report.elements.words import (
    NO_DIFFERENCE,
    NO_INTERVAL,
    difference_text,
    point_text,
    ratio_text,
    verdict_text,
)


def of(value, low=None, high=None, same=1.0):
    return contrast(value, None if low is None else Interval(value, low, high), same=same)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (of(1.98, 1.9, 2.06), "1.98x (1.90x to 2.06x)"),
        (of(1.98, 1.9799, 1.9801), "1.98x"),  # an interval that nobody would see
        (of(1.98), "1.98x"),
        (None, ABSENT),
    ],
)
def test_ratios(one, text):
    assert ratio_text(one) == text


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (of(0.03, -0.01, 0.07), "+0.030 (-0.010 to +0.070)"),
        (of(-0.03), "-0.030"),
        (None, ABSENT),
    ],
)
def test_differences(one, text):
    assert difference_text(one) == text


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (of(2.0, 1.5, 2.5), "slower"),
        (of(0.5, 0.4, 0.6), "faster"),
        (of(1.1, 0.9, 1.3), NO_DIFFERENCE),
        (of(1.0, 1.0, 1.0), NO_DIFFERENCE),
        (of(2.0), NO_INTERVAL),
        (None, ABSENT),
    ],
)
def test_no_word_says_more_than_the_interval(one, text):
    assert verdict_text(one, more="slower", less="faster") == text


def test_points_in_words():
    point = {"max_length": 64, "train_size": 25_000.0, "learning_rate": 2e-05}
    assert point_text(point) == "length 64, training examples 25,000, learning_rate 2e-05"
