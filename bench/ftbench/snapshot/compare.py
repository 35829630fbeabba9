"""Compare: a snapshot with the prediction of the same run, allocation by allocation, and by category."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ftbench.records.predicted_allocations import PredictedAllocations, PredictedPart
from ftbench.records.prediction import CellPrediction
from ftbench.snapshot.expected import Expected
from ftbench.snapshot.frames import NO_FRAME, Frame, LineNames
from ftbench.snapshot.history import Earlier, History, history_of
from ftbench.snapshot.match import Match, match
from ftbench.snapshot.moment import Moment, bytes_of, moment_of, own_peaks
from ftbench.snapshot.observed import figure_rows, nearest_figures
from ftbench.snapshot.result import (
    Agreement,
    Comparison,
    Difference,
    EarlierDifference,
    Kind,
    LineBytes,
)
from ftbench.snapshot.snapshot_file import Snapshot

# Below this share of allocations that agree in order, only categories are compared.
_LEAST_ALIKE = 0.5
_RELEASES: dict[int, Kind] = {1: "freed later", 2: "kept", -1: "freed earlier"}


def compare(
    snapshot: Snapshot, device: int, prediction: CellPrediction, observed: Sequence[int] = ()
) -> Comparison:
    """Return a device's part of a snapshot compared with a prediction that has its allocations.

    `observed` are numbers of bytes, of which the nearest figures are returned as well.
    """
    assert prediction.allocations is not None
    memory = snapshot.devices[device]
    expandable = snapshot.expandable(memory)
    history = history_of(memory, expandable=expandable)
    found = match(prediction.allocations, history.rows, whole=history.whole)
    compared = _Compared(found, history, prediction.allocations)
    agreement = compared.agreement()
    ordered = agreement.alike >= _LEAST_ALIKE * max(agreement.recorded - agreement.beyond, 1)
    moment = moment_of(found, history) if ordered else own_peaks(found, history)
    card = prediction.cards[0] if prediction.cards else None
    figures = figure_rows(history, prediction.tensors, card)
    return Comparison(
        device=device,
        begins="with the process" if history.whole else "later",
        agreement=agreement,
        ordered=ordered,
        differences=tuple(compared.differences(moment)) if ordered else (),
        earlier=tuple(compared.earlier(moment)) if ordered else (),
        snapshot_bytes=int(found.nbytes[moment.theirs].sum()) + bytes_of(moment.earlier),
        predicted_bytes=int(found.expected.nbytes[moment.ours].sum()),
        by_line=tuple(compared.by_line(moment, ordered=ordered)),
        figures=figures,
        nearest=nearest_figures(observed, figures, card),
        out_of_memory=history.out_of_memory,
        settings=tuple(snapshot.settings.items()),
        expandable=expandable,
        private_bytes=history.private_bytes,
        private_rows=history.private_rows,
        unexplained_blocks=history.unexplained,
        frees_missing=history.frees_missing,
        has_events=bool(memory.events),
        has_segments=snapshot.has_segments,
        has_frames=any(frame.source for frame in history.rows.frames),
        earlier_blocks=len(history.earlier),
        earlier_bytes=bytes_of(history.earlier),
    )


class _Compared:
    """A recording beside what is expected of it."""

    def __init__(self, found: Match, history: History, names: PredictedAllocations) -> None:
        self._found, self._history, self._names = found, history, names
        self._expected: Expected = found.expected

    def agreement(self) -> Agreement:
        """Return how far the order agrees."""
        found = self._found
        sizes = found.expected.nbytes[found.pairs[:, 0]] == found.nbytes[found.pairs[:, 1]]
        equal = sizes & ~found.other_stream & (found.release == 0)
        over, rest = found.ours_are_over, found.rest
        return Agreement(
            recorded=len(found.nbytes),
            recorded_bytes=int(found.nbytes.sum()),
            alike=len(found.same),
            equal=int(equal.sum()),
            equal_bytes=int(found.nbytes[found.pairs[equal, 1]].sum()),
            beyond=rest if over else 0,
            not_reached=0 if rest else len(self._expected) - found.last[0],
            skipped=found.start[0],
            unaligned=0 if over else rest,
        )

    def differences(self, moment: Moment) -> list[Difference]:
        """Return the allocations that differ, in groups, those that move the peak most first."""
        groups: dict[tuple[object, ...], list[_Single]] = defaultdict(list)
        for one in (*self._of_pairs(moment), *self._extra(moment), *self._missing(moment)):
            groups[one.key].append(one)
        found = [_joined(group) for group in groups.values()]
        return sorted(found, key=lambda one: (-abs(one.peak_bytes), -one.nbytes, one.first))

    def _of_pairs(self, moment: Moment) -> Iterable[_Single]:
        found = self._found
        ours, theirs = found.pairs[:, 0], found.pairs[:, 1]
        sizes, asked = found.expected.nbytes[ours], found.nbytes[theirs]
        differ = (sizes != asked) | found.other_stream | (found.release != 0)
        for at in np.flatnonzero(differ).tolist():
            kind: Kind = _RELEASES.get(int(found.release[at]), "stream")
            if sizes[at] != asked[at]:
                kind = "size"
            elif found.other_stream[at]:
                kind = "stream"
            row, other = int(ours[at]), int(theirs[at])
            yield _Single(
                kind,
                row=other,
                nbytes=int(asked[at]),
                expected_bytes=int(sizes[at]),
                peak_bytes=int(asked[at]) * bool(moment.theirs[other])
                - int(sizes[at]) * bool(moment.ours[row]),
                frame=self._history.rows.frames[other],
                part=self._part(row),
            )

    def _extra(self, moment: Moment) -> Iterable[_Single]:
        rows = self._history.rows
        for row in self._found.extra.tolist():
            size = rows.nbytes[row]
            live = size * bool(moment.theirs[row])
            yield _Single("extra", row, size, 0, live, frame=rows.frames[row], part=None)

    def _missing(self, moment: Moment) -> Iterable[_Single]:
        found = self._found
        after = np.append(found.pairs[:, 1], found.theirs_end)
        places = after[np.searchsorted(found.pairs[:, 0], found.missing)]
        for row, place in zip(found.missing.tolist(), places.tolist(), strict=True):
            size = int(self._expected.nbytes[row])
            live = -size * bool(moment.ours[row])
            part = self._part(row)
            yield _Single("missing", place, 0, size, live, frame=NO_FRAME, part=part)

    def _part(self, row: int) -> PredictedPart:
        return self._names.part_names[int(self._expected.parts[row])]

    def earlier(self, moment: Moment) -> list[EarlierDifference]:
        """Return the blocks from before the recording that differ from those expected, by size."""
        theirs: dict[int, list[Earlier]] = defaultdict(list)
        for one in moment.earlier:
            theirs[one.nbytes].append(one)
        ours: dict[int, list[int]] = defaultdict(list)
        for row in moment.before.tolist():
            ours[int(self._expected.nbytes[row])].append(row)
        found = []
        for size in dict.fromkeys([*theirs, *ours]):
            more = len(theirs[size]) - len(ours[size])
            if more and size:
                frame = theirs[size][-1].frame if more > 0 else NO_FRAME
                part = self._part(ours[size][-1]) if more < 0 else None
                found.append(EarlierDifference(size, abs(more), more * size, frame, part))
        return sorted(found, key=lambda one: (-abs(one.live_bytes), one.nbytes))

    def by_line(self, moment: Moment, *, ordered: bool) -> list[LineBytes]:
        """Return the live bytes of both sides by line of code, the largest difference first.

        If the order agrees, an expected allocation has the line of the recorded one that is the same, which may not
        be known, as in a backward pass.
        """
        frames = self._history.rows.frames
        theirs: Counter[str] = Counter()
        for row in np.flatnonzero(moment.theirs).tolist():
            theirs[frames[row].source] += self._history.rows.nbytes[row]
        for one in moment.earlier:
            theirs[one.frame.source] += one.nbytes
        line_of = self._lines(moment) if ordered else {}
        shown = LineNames({frame.source for frame in frames})
        ours: Counter[str] = Counter()
        for row in np.flatnonzero(moment.ours).tolist():
            source = line_of.get(row)
            if source is None:
                source = shown.of(self._part(row).source)
            ours[source] += int(self._expected.nbytes[row])
        found = [LineBytes(name, theirs[name], ours[name]) for name in theirs.keys() | ours.keys()]
        return sorted(
            found,
            key=lambda one: (-abs(one.snapshot_bytes - one.predicted_bytes), one.source),
        )

    def _lines(self, moment: Moment) -> dict[int, str]:
        """Return the recorded line of each row of ours that is in the recording, or was allocated before it."""
        frames = self._history.rows.frames
        found = {row: frames[other].source for row, other in self._found.pairs.tolist()}
        earlier: dict[int, list[str]] = defaultdict(list)
        for one in moment.earlier:
            earlier[one.nbytes].append(one.frame.source)
        for row in moment.before.tolist():
            if alike := earlier[int(self._expected.nbytes[row])]:
                found[row] = alike.pop()
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Single:
    """One allocation that differs; `row` is its place among the recorded ones."""

    kind: Kind
    row: int
    nbytes: int
    expected_bytes: int
    peak_bytes: int
    frame: Frame
    part: PredictedPart | None

    @property
    def key(self) -> tuple[object, ...]:
        """Return what the members of a group have in common; without a line of code, also their size."""
        part = self.part and (self.part.role, self.part.module, self.part.operator)
        size = self.nbytes if not self.frame.source and part is None else 0
        return self.kind, self.frame.source, part, size


def _joined(group: Sequence[_Single]) -> Difference:
    largest = max(group, key=lambda one: (one.nbytes, one.expected_bytes))
    first = min(group, key=lambda one: one.row)
    return Difference(
        kind=first.kind,
        count=len(group),
        nbytes=largest.nbytes,
        expected_bytes=largest.expected_bytes,
        peak_bytes=sum(one.peak_bytes for one in group),
        first=first.row,
        frame=first.frame,
        part=first.part,
    )
