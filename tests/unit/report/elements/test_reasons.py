"""Reasons of fits in words: each type once."""

import pytest

from ftbench.analysis.fits import reasons
from ftbench.plan.scores import ACCURACY
from ftbench.report.elements.reasons import reason_words, weak_words, weakness_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            reasons.TooFewCells(1, 4),
            "the lengths and batches make 1 cell; 4 are needed",
        ),
        (
            reasons.CellsTooAlike(),
            "the lengths and batches differ too little to tell the terms of a law apart",
        ),
        (reasons.ColumnsMissing(("save_s", "load_s")), "the table has no save_s, load_s"),
        (reasons.NoScore(ACCURACY), "no run has a score (accuracy)"),
        (reasons.NoSizesToCompare(), "no cells differ only in their training examples"),
        (reasons.TooFewSizes(3, 4), "the training set has 3 sizes; 4 sizes are needed"),
        (
            reasons.TooFewSeeds(1, 3),
            "1 run repeats a size with another seed; 3 are needed to know how much the seed alone changes"
            " the score",
        ),
        (
            reasons.NoRise(ACCURACY, 0.7, 100, 0.7004, 3200),
            "accuracy does not rise by more than another seed can change it: from 0.700 with 100 training"
            " examples to 0.700 with 3,200",
        ),
        (
            reasons.ExponentUnknown(0.05, 1.9),
            "the exponent may be anything from 0.05 to 1.90",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_why_there_is_no_fit(reason, words):
    assert reason_words(reason) == words


@pytest.mark.parametrize(
    ("weakness", "words"),
    [
        (
            reasons.ErrorAboveThreshold("extrapolation", 0.123, 0.1),
            "the median error of extrapolation is 12.3%, above the threshold of 10%",
        ),
        (reasons.NoneHeldOut(), "too few cells to hold any out"),
        (reasons.OneValueOf("max_length"), "only one value of length"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_check_a_fit_failed(weakness, words):
    assert weakness_words(weakness) == words


def test_several_checks_are_one_text():
    both = (reasons.NoneHeldOut(), reasons.OneValueOf("train_size"))
    assert weak_words(both) == "too few cells to hold any out; only one value of training examples"
    assert weak_words(()) == ""


@pytest.mark.parametrize("words", [reason_words, weakness_words])
def test_a_type_without_words_is_an_error(words):
    with pytest.raises(TypeError):
        words("text")
