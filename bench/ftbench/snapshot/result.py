"""The result of comparing a snapshot with a prediction. Plain data."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ftbench.base.errors import EXIT_FINDING, EXIT_OK
from ftbench.records.predicted_allocations import PredictedPart
from ftbench.records.prediction import PredictedBytes
from ftbench.snapshot.frames import Frame
from ftbench.snapshot.history import FigureName, OutOfMemory

# How an allocation of the snapshot differs from the prediction: it is not predicted, or predicted and not there; or
# both are there, and it has another size, is on another stream, or is freed later, earlier or never.
Kind = Literal["extra", "missing", "size", "stream", "freed later", "freed earlier", "kept"]
# Where a recording begins: at the first allocation of the process, or later.
Begins = Literal["with the process", "later"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Allocations that differ in the same way: of one line of code, or of one predicted part.

    `nbytes` are requested bytes of the largest of them in the snapshot, and `expected_bytes` what was predicted of
    it; 0 if there is none. `peak_bytes` is by how much they raise what is live at the compared moment, negative if
    they lower it. `first` is the number of the first of them among the snapshot's allocations, from 0.
    """

    kind: Kind
    count: int
    nbytes: int
    expected_bytes: int
    peak_bytes: int
    first: int
    frame: Frame
    part: PredictedPart | None


@dataclasses.dataclass(frozen=True)
class EarlierDifference:
    """Blocks from before the recording of which the snapshot has more or fewer than predicted, of one size each.

    `live_bytes` is positive for those in the snapshot that are not predicted, negative for the others.
    """

    nbytes: int
    count: int
    live_bytes: int
    frame: Frame
    part: PredictedPart | None


@dataclasses.dataclass(frozen=True)
class LineBytes:
    """What is live of one line of code at the compared moment, in the snapshot and as predicted, in bytes."""

    source: str
    snapshot_bytes: int
    predicted_bytes: int


@dataclasses.dataclass(frozen=True)
class FigureRow:
    """One figure: its peak in the recorded time, its value at the end, and the predicted peak; None if unknown."""

    name: FigureName | Literal["process"]
    peak_bytes: int | None
    end_bytes: int | None
    predicted: PredictedBytes | None


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The figure that an observed number of bytes is nearest to. `when` says of which moment it is.

    `distance_bytes` is observed less figure; 0 within an interval.
    """

    observed_bytes: int
    name: FigureName | Literal["process"]
    when: Literal["peak", "end", "predicted peak"]
    low_bytes: int
    high_bytes: int
    distance_bytes: int


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far the order of allocations agrees.

    `recorded` are the allocations of the snapshot; of these, `alike` were predicted with the same size and
    order, and `equal` also with stream and release. `equal_bytes` is the part of `recorded_bytes` of the
    latter, summed over allocations. `beyond` come after the end of what is predicted; they are not compared.
    `not_reached` were predicted after the end of the recording, and `skipped` before its beginning. `unaligned`
    of the snapshot come where the two have nothing in common any more.
    """

    recorded: int
    recorded_bytes: int
    alike: int
    equal: int
    equal_bytes: int
    beyond: int
    not_reached: int
    skipped: int
    unaligned: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A snapshot compared with a prediction; bytes are requested bytes unless said otherwise.

    At the compared moment, the peak of the part that agrees in order, `snapshot_bytes` and `predicted_bytes`
    are live; the `peak_bytes` of all differences and the `live_bytes` of the earlier ones add up to what lies
    between them. `by_line` is the same in categories. `ordered` is False if so little agrees in order that only
    categories mean anything: they are then of each side's own peak.
    """

    device: int
    begins: Begins
    agreement: Agreement
    ordered: bool
    differences: tuple[Difference, ...]
    earlier: tuple[EarlierDifference, ...]
    snapshot_bytes: int
    predicted_bytes: int
    by_line: tuple[LineBytes, ...]
    figures: tuple[FigureRow, ...]
    nearest: tuple[Nearest, ...]
    out_of_memory: tuple[OutOfMemory, ...]
    settings: tuple[tuple[str, str], ...]
    expandable: bool
    private_bytes: int
    private_rows: int
    unexplained_blocks: int
    frees_missing: int
    has_events: bool
    has_segments: bool
    has_frames: bool
    earlier_blocks: int
    earlier_bytes: int

    @property
    def agrees(self) -> bool:
        """Whether all that is recorded is as predicted."""
        found = self.differences or self.earlier or self.out_of_memory
        how = self.agreement
        return self.ordered and not found and not how.unaligned and not how.beyond

    @property
    def exit_code(self) -> int:
        """Return 0 if all that is recorded is as predicted, 1 if not."""
        return EXIT_OK if self.agrees else EXIT_FINDING
