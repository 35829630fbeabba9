"""Reasons: why a cost or a score has no fit, and which checks a fit failed. Values, no sentences."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.plan.scores import ScoreKind

# Why there is no fit


@dataclasses.dataclass(frozen=True)
class TooFewCells:
    """The lengths and batches make fewer cells than the simplest law needs."""

    found: int
    needed: int


@dataclasses.dataclass(frozen=True)
class CellsTooAlike:
    """The lengths and batches differ too little to tell a law's terms apart."""


@dataclasses.dataclass(frozen=True)
class ColumnsMissing:
    """The table lacks columns that the fit is made from."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NoScore:
    """No run has a score."""

    score: ScoreKind


@dataclasses.dataclass(frozen=True)
class NoSizesToCompare:
    """No cells differ in their training examples alone."""


@dataclasses.dataclass(frozen=True)
class TooFewSizes:
    """The runs have too few sizes of the training set."""

    found: int
    needed: int


@dataclasses.dataclass(frozen=True)
class TooFewSeeds:
    """Too few runs have another seed than the first of their size, over all sizes."""

    found: int
    needed: int


@dataclasses.dataclass(frozen=True)
class NoRise:
    """From the smallest size to the largest a score does not rise by more than seeds move it."""

    score: ScoreKind
    first: float
    first_size: int
    last: float
    last_size: int


@dataclasses.dataclass(frozen=True)
class ExponentUnknown:
    """The interval of a learning curve's exponent is too wide to know anything of it."""

    low: float
    high: float


Reason = (
    TooFewCells
    | CellsTooAlike
    | ColumnsMissing
    | NoScore
    | NoSizesToCompare
    | TooFewSizes
    | TooFewSeeds
    | NoRise
    | ExponentUnknown
)

# Which checks a fit failed


@dataclasses.dataclass(frozen=True)
class ErrorAboveThreshold:
    """The median error on held-out cells, as a share of the measured value, is above its threshold."""

    kind: Literal["interpolation", "extrapolation"]
    median_error: float
    threshold: float


@dataclasses.dataclass(frozen=True)
class NoneHeldOut:
    """There are too few cells to hold any out."""


@dataclasses.dataclass(frozen=True)
class OneValueOf:
    """The cells have one value of an axis, so the fit says nothing of others."""

    axis: str


Weakness = ErrorAboveThreshold | NoneHeldOut | OneValueOf
