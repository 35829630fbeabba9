"""Why a cost or a score has no fit, and which checks a fit failed, in words. One function per type of value."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ftbench.analysis.fits import reasons
from ftbench.analysis.fits.reasons import Reason, Weakness
from ftbench.base.units import counted
from ftbench.report.elements.words import axis_word


@functools.singledispatch
def reason_words(reason: Reason) -> str:
    """Return in a sentence why there is no fit."""
    raise TypeError(type(reason))


@reason_words.register
def _(reason: reasons.TooFewCells) -> str:
    return (
        f"the lengths and batches make {counted(reason.found, 'cell')}; {reason.needed} are needed"
    )


@reason_words.register
def _(_reason: reasons.CellsTooAlike) -> str:
    return "the lengths and batches differ too little to tell the terms of a law apart"


@reason_words.register
def _(reason: reasons.ColumnsMissing) -> str:
    return f"the table has no {', '.join(reason.names)}"


@reason_words.register
def _(reason: reasons.NoScore) -> str:
    return f"no run has a score ({reason.score.word})"


@reason_words.register
def _(_reason: reasons.NoSizesToCompare) -> str:
    return "no cells differ only in their training examples"


@reason_words.register
def _(reason: reasons.TooFewSizes) -> str:
    return f"the training set has {counted(reason.found, 'size')}; {reason.needed} sizes are needed"


@reason_words.register
def _(reason: reasons.TooFewSeeds) -> str:
    repeat = "repeats" if reason.found == 1 else "repeat"
    return (
        f"{counted(reason.found, 'run')} {repeat} a size with another seed; {reason.needed} are needed to know how"
        " much the seed alone changes the score"
    )


@reason_words.register
def _(reason: reasons.NoRise) -> str:
    return (
        f"{reason.score.word} does not rise by more than another seed can change it: from {reason.first:.3f} with"
        f" {reason.first_size:,} training examples to {reason.last:.3f} with {reason.last_size:,}"
    )


@reason_words.register
def _(reason: reasons.ExponentUnknown) -> str:
    return f"the exponent may be anything from {reason.low:.2f} to {reason.high:.2f}"


@functools.singledispatch
def weakness_words(one: Weakness) -> str:
    """Return which check a fit failed."""
    raise TypeError(type(one))


@weakness_words.register
def _(one: reasons.ErrorAboveThreshold) -> str:
    return (
        f"the median error of {one.kind} is {one.median_error:.1%}, above the threshold of"
        f" {one.threshold:.0%}"
    )


@weakness_words.register
def _(_one: reasons.NoneHeldOut) -> str:
    return "too few cells to hold any out"


@weakness_words.register
def _(one: reasons.OneValueOf) -> str:
    return f"only one value of {axis_word(one.axis)}"


def weak_words(weak: Sequence[Weakness]) -> str:
    """Return all checks that a fit failed; empty if it failed none."""
    return "; ".join(map(weakness_words, weak))
