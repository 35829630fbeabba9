"""Result: what the gate found, as values. `ftbench.report.commands.gate` makes the sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ftbench.base.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_OK
from ftbench.gating.attribution import ChangedPart
from ftbench.gating.baseline import SlopeAxis
from ftbench.gating.places import CellKey, Place
from ftbench.gating.reasons import Reason, SettingChange, VersionChange
from ftbench.records import prediction
from ftbench.records.prediction import Moment

# `explained` changes are told and do not fail; the others do.
Verdict = Literal["regression", "improvement", "explained"]
BytesKind = Literal["requested", "allocated", "reserved", "growth"]


@dataclasses.dataclass(frozen=True)
class _CellChange:
    """A change of a figure of one cell."""

    place: Place

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what tells the cell's group apart."""
        return self.place.settings


@dataclasses.dataclass(frozen=True)
class BytesChange(_CellChange):
    """Predicted bytes, on a card or (None) of tensors alone; `growth` is that of what steps keep."""

    kind: BytesKind
    gpu: str | None
    before: int
    after: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class BlocksChange(_CellChange):
    """The number of storages that are live at the peak: a card rounds each up to a multiple of 512 bytes."""

    before: int
    after: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class FitChange(_CellChange):
    """Whether a cell is predicted to fit on a card."""

    gpu: str
    before: prediction.Verdict
    after: prediction.Verdict
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class SlopeChange:
    """A slope of a group along the edge of its grid, in bytes per sample or per token, as in `Slope`."""

    settings: Mapping[str, Any]
    axis: SlopeAxis
    fixed: int
    low: int
    high: int
    before: float
    after: float
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class LargestBatchChange:
    """The largest batch that certainly fits on a card at a length."""

    settings: Mapping[str, Any]
    gpu: str
    max_length: int
    before: int
    after: int
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class MeasuredPeakChange(_CellChange):
    """A measured peak in bytes, and by how many it may differ.

    `readings` is the number of the baseline's runs whose spread that was derived from; None for torch's own
    counters, which may differ by a share.
    """

    figure: str
    before: float
    after: float
    allowed_bytes: float
    readings: int | None
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class OutOfMemory(_CellChange):
    """A cell whose runs ended well in the baseline, and run out of memory now."""

    verdict: Verdict = "regression"


@dataclasses.dataclass(frozen=True)
class ScoreChange(_CellChange):
    """The mean score over seeds, by its name; `seeds` has their number in the baseline and now."""

    score: str
    before: float
    after: float
    seeds: tuple[int, int]
    p_value: float
    verdict: Verdict = "regression"


@dataclasses.dataclass(frozen=True)
class TimeChange(_CellChange):
    """The median of a time in seconds; `ratio` is the median over pairs of runs."""

    figure: str
    before: float
    after: float
    ratio: float
    pairs: int
    p_value: float
    verdict: Verdict = "regression"


Change = (
    BytesChange
    | BlocksChange
    | FitChange
    | SlopeChange
    | LargestBatchChange
    | MeasuredPeakChange
    | OutOfMemory
    | ScoreChange
    | TimeChange
)


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Which parts moved in a group, seen in its largest cell: its peak before, and by how many bytes it moved.

    `moments` are those of the peak before and now. Parts that were compared at another moment do not add up to
    the change: `remainder` has the bytes that they lack, by the role of the tensors that are live at the peaks.
    """

    settings: Mapping[str, Any]
    reference: CellKey
    before_bytes: int
    delta_bytes: int
    changed_parts: tuple[ChangedPart, ...]
    moments: tuple[Moment, Moment]
    remainder: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def after_bytes(self) -> int:
        """Return the peak now."""
        return self.before_bytes + self.delta_bytes

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the peak is reached by another operator, in another module or phase, than before."""
        before, after = ((one.phase, one.module, one.operator) for one in self.moments)
        return before != after


@dataclasses.dataclass(frozen=True)
class GateResult:
    """What was compared, what changed, by what, what could not be judged, and what else must be known.

    `versions` and `settings` are of libraries and settings that changed with the figures. `accept` has the words
    of the command that accepts the changes; it is empty if there is no such command.
    """

    profile: str
    judged: tuple[Place, ...]
    changes: tuple[Change, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    unjudged: tuple[Reason, ...] = ()
    versions: tuple[VersionChange, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    notes: tuple[Reason, ...] = ()
    accept: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Change, ...]:
        """Return the changes that fail."""
        return tuple(change for change in self.changes if change.verdict != "explained")

    @property
    def exit_code(self) -> int:
        """Return 0 if all holds, 1 if something changed, 2 if not all could be judged, or nothing was."""
        if self.failures:
            return EXIT_FINDING
        return EXIT_BAD_INPUT if self.unjudged or not self.judged else EXIT_OK
