"""Reasons: why something was not judged, or what must be known beside the verdict. Values, no sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ftbench.gating.places import CellKey, Place

# Which of the two has no such figure.
Side = Literal["baseline", "now"]


@dataclasses.dataclass(frozen=True)
class Failed:
    """The comparison was not made: an error's message says why."""

    message: str


@dataclasses.dataclass(frozen=True)
class VersionChange:
    """A library whose version is not the baseline's; None if one side does not have it."""

    package: str
    before: str | None
    after: str | None


@dataclasses.dataclass(frozen=True)
class SettingChange:
    """A setting whose value is not the baseline's; None is its default."""

    name: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True)
class OtherVersions:
    """Figures of other versions of libraries are compared only if that is asked for."""

    versions: tuple[VersionChange, ...]


@dataclasses.dataclass(frozen=True)
class Differs:
    """The two are not of the same thing; None is absent, or for the attention kernel any."""

    what: Literal["workload", "machine", "card", "attention kernel"]
    name: str
    before: Any
    after: Any


@dataclasses.dataclass(frozen=True)
class GroupMissing:
    """One side has no such group; `why` is what prediction refused it for."""

    settings: Mapping[str, Any]
    side: Side
    why: str = ""


@dataclasses.dataclass(frozen=True)
class CellMissing:
    """One side has no figures of a cell."""

    place: Place
    side: Side


@dataclasses.dataclass(frozen=True)
class CardMissing:
    """One side has no figures of a cell on a card."""

    place: Place
    gpu: str
    side: Side


@dataclasses.dataclass(frozen=True)
class LargestBatchMissing:
    """One side has no largest batch of a card and length."""

    settings: Mapping[str, Any]
    gpu: str
    max_length: int
    side: Side


@dataclasses.dataclass(frozen=True)
class OtherKernels:
    """The reference cell of a group runs other fused kernels of attention now."""

    settings: Mapping[str, Any]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class OtherReference:
    """The parts of a group are of one cell in the baseline and of another now: they are not compared."""

    settings: Mapping[str, Any]
    before: CellKey
    after: CellKey


@dataclasses.dataclass(frozen=True)
class FigureMissing:
    """The runs of a cell do not have a figure now that the baseline has."""

    place: Place
    figure: str


@dataclasses.dataclass(frozen=True)
class NoMemoryFigure:
    """The baseline's runs of a cell have no figure of memory that can be judged."""

    place: Place


@dataclasses.dataclass(frozen=True)
class TooFewReadings:
    """A sampled figure's spread is not known from so few runs."""

    place: Place
    figure: str
    runs: int
    needed: int


@dataclasses.dataclass(frozen=True)
class SingleSeed:
    """No cell has runs of two seeds, so a fall of accuracy may be the seed's."""


@dataclasses.dataclass(frozen=True)
class NoTimes:
    """A cell has no time that both sides measured."""

    place: Place


@dataclasses.dataclass(frozen=True)
class NotAlternating:
    """Time is not judged: the two sides' runs do not alternate, or (if kept in a baseline) when is not known."""

    kept: bool


@dataclasses.dataclass(frozen=True)
class TooFewPairs:
    """Time is not judged: a cell has too few pairs of runs."""

    pairs: int
    needed: int


@dataclasses.dataclass(frozen=True)
class TooFewPairsForAll:
    """The time of some cells is not judged: with so many figures a rank test needs more pairs of each."""

    needed: int
    figures: int
    places: tuple[Place, ...]


@dataclasses.dataclass(frozen=True)
class RunsLeftOut:
    """Runs that are not among the samples: they ended with a status other than ok, or are not to be believed."""

    count: int
    status: str


@dataclasses.dataclass(frozen=True)
class RecordsUnreadable:
    """Records of a run directory that cannot be read."""

    count: int


@dataclasses.dataclass(frozen=True)
class CellsNotRun:
    """Cells that were asked for and have no record."""

    count: int


@dataclasses.dataclass(frozen=True)
class EnvironmentsUnknown:
    """Environments that runs name and the run directory does not have."""

    environment_ids: tuple[str, ...]


Reason = (
    Failed
    | OtherVersions
    | Differs
    | GroupMissing
    | CellMissing
    | CardMissing
    | LargestBatchMissing
    | OtherKernels
    | OtherReference
    | FigureMissing
    | NoMemoryFigure
    | TooFewReadings
    | SingleSeed
    | NoTimes
    | NotAlternating
    | TooFewPairs
    | TooFewPairsForAll
    | RunsLeftOut
    | RecordsUnreadable
    | CellsNotRun
    | EnvironmentsUnknown
)
