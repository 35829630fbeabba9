"""Compare: what changed between a baseline and what is predicted now, and whether that may be. Pure.

Requested bytes decide, to the byte: they do not depend on the order in which modules are defined. Allocated
and reserved bytes do, so a change of theirs fails only if requested bytes of its group changed, or what fits.
Slopes are differences of peaks, and fail with these. An improvement that nobody has accepted fails too: else a
later regression up to the old figure would pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ftbench.gating.attribution import changed_parts, remainder
from ftbench.gating.baseline import Baseline, CardBytes, CellBytes, Group
from ftbench.gating.pairs import other_workload, paired
from ftbench.gating.peaks import Peaks
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.predicted import RefusedGroup
from ftbench.gating.reasons import (
    CardMissing,
    CellMissing,
    Differs,
    GroupMissing,
    LargestBatchMissing,
    OtherKernels,
    OtherReference,
    OtherVersions,
    Reason,
    Side,
    VersionChange,
)
from ftbench.gating.result import (
    Attribution,
    BlocksChange,
    BytesChange,
    BytesKind,
    Change,
    FitChange,
    GateResult,
    LargestBatchChange,
    SlopeChange,
    Verdict,
)
from ftbench.plan.settings import differing
from ftbench.records import prediction

_ROUNDED_TO_BYTES = 512  # a card's allocator rounds each request up (kMinBlockSize)
_FROM_WORST: tuple[prediction.Verdict, ...] = ("does not fit", "too close to call", "fits")


def compare(
    before: Baseline,
    after: Baseline,
    *,
    tolerance_bytes: int = 0,
    across_versions: bool = False,
    across_workloads: bool = False,
    refused: Sequence[RefusedGroup] = (),
) -> GateResult:
    """Return what changed from a baseline to what is found now.

    Changed settings are compared, and named. Other versions of the libraries are not judged, unless
    `across_versions`; another workload or other cards
    are not, unless `across_workloads`, which is for showing what an update would write. `refused` has the
    groups that could not be predicted now, and why.
    """
    versions = version_changes(before.versions, after.versions)
    elsewhere = tuple(_elsewhere(before, after))
    unjudged: list[Reason] = [] if across_workloads else [*elsewhere]
    if versions and not across_versions:
        unjudged.append(OtherVersions(versions))
    if unjudged:
        return GateResult(after.profile, (), unjudged=tuple(unjudged), versions=versions)
    comparison = _Comparison(tolerance_bytes, refused)
    pairs = paired(before, after, [one.settings for one in refused])
    for pair in pairs:
        comparison.groups(pair.settings, pair.before, pair.after)
    return GateResult(
        profile=after.profile,
        judged=tuple(comparison.judged),
        changes=tuple(comparison.changes),
        attributions=tuple(comparison.attributions),
        unjudged=tuple(comparison.unjudged),
        versions=versions,
        settings=tuple(dict.fromkeys(change for pair in pairs for change in pair.changes)),
        notes=(*elsewhere, *comparison.notes),
    )


def compare_peaks(
    name: str,
    before: Peaks,
    after: Peaks,
    *,
    tolerance_bytes: int = 0,
    across_versions: bool = False,
) -> GateResult:
    """Return which peaks of benchmarks changed by more than a tolerance; of them no parts are known."""
    versions = version_changes(before.versions, after.versions)
    if versions and not across_versions:
        return GateResult(name, (), unjudged=(OtherVersions(versions),), versions=versions)
    places = {
        one: Place({}, NamedSteps(name=one))
        for one in dict.fromkeys([*before.nbytes, *after.nbytes])
    }
    both = [one for one in before.nbytes if one in after.nbytes]
    changes = (
        _bytes_change(places[one], "requested", None, before.nbytes[one], after.nbytes[one])
        for one in both
    )
    missing = [
        CellMissing(places[one], "now") for one in before.nbytes if one not in after.nbytes
    ] + [CellMissing(places[one], "baseline") for one in after.nbytes if one not in before.nbytes]
    return GateResult(
        profile=name,
        judged=tuple(places[one] for one in both),
        changes=tuple(c for c in changes if abs(c.after - c.before) > tolerance_bytes),
        unjudged=tuple(missing),
        versions=versions,
    )


def version_changes(
    before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[VersionChange, ...]:
    """Return the packages whose versions differ, by name."""
    return tuple(
        VersionChange(package, before.get(package), after.get(package))
        for package in sorted(before.keys() | after.keys())
        if before.get(package) != after.get(package)
    )


def _elsewhere(before: Baseline, after: Baseline) -> Iterator[Differs]:
    """Yield in what two baselines are not of the same thing."""
    ours, theirs = before.workload, after.workload
    for name in other_workload(ours, theirs):
        yield Differs("workload", name, ours.get(name), theirs.get(name))
    for name in differing(before.architectures, after.architectures):
        yield Differs("card", name, before.architectures.get(name), after.architectures.get(name))
    if before.attention_kernel != after.attention_kernel:
        yield Differs("attention kernel", "", before.attention_kernel, after.attention_kernel)


class _Comparison:
    """Collects what changed, group by group."""

    def __init__(self, tolerance_bytes: int, refused: Sequence[RefusedGroup]) -> None:
        self._tolerance = tolerance_bytes
        self._refused = refused
        self.judged: list[Place] = []
        self.changes: list[Change] = []
        self.attributions: list[Attribution] = []
        self.unjudged: list[Reason] = []
        self.notes: list[Reason] = []

    def groups(
        self, settings: Mapping[str, Any], before: Group | None, after: Group | None
    ) -> None:
        """Compare two groups with the same settings; one that is missing is not judged."""
        if before is None or after is None:
            why = next((one.reason for one in self._refused if one.settings == settings), "")
            side: Side = "baseline" if before is None else "now"
            self.unjudged.append(GroupMissing(settings, side, why))
            return
        if before.attention != after.attention:
            self.notes.append(OtherKernels(settings, before.attention, after.attention))
        first = len(self.changes)
        moved = self._cells(before, after) | self._largest(before, after)
        self._slopes(before, after)
        if not moved:
            self.changes[first:] = [
                dataclasses.replace(change, verdict="explained") for change in self.changes[first:]
            ]
        elif not any(map(_of_tensors, self.changes[first:])):
            return  # as many bytes at the peak, so no part is larger
        elif before.reference != after.reference:
            self.notes.append(OtherReference(settings, before.reference, after.reference))
        else:
            found = changed_parts(before.breakdown, after.breakdown)
            peak = _peak(before)
            self.attributions.append(
                Attribution(
                    settings,
                    after.reference,
                    peak,
                    _peak(after) - peak,
                    tuple(found),
                    (before.moment, after.moment),
                    remainder(before.breakdown, after.breakdown, found),
                )
            )

    def _cells(self, before: Group, after: Group) -> bool:
        """Compare peaks and what fits; return whether any changed by more than it may."""
        moved = False
        ours, theirs = before.by_cell, after.by_cell
        for cell in dict.fromkeys([*ours, *theirs]):
            place = Place(after.settings, cell)
            if cell not in ours or cell not in theirs:
                self.unjudged.append(CellMissing(place, "now" if cell in ours else "baseline"))
                continue
            self.judged.append(place)
            moved |= self._cell(place, ours[cell], theirs[cell])
        return moved

    def _cell(self, place: Place, before: CellBytes, after: CellBytes) -> bool:
        moved = self._requested(place, None, before.tensors_bytes, after.tensors_bytes)
        moved |= self._kept(place, before, after)
        for gpu in dict.fromkeys([*before.cards, *after.cards]):
            ours, theirs = before.cards.get(gpu), after.cards.get(gpu)
            if ours is None or theirs is None:
                self.unjudged.append(CardMissing(place, gpu, "baseline" if ours is None else "now"))
            else:
                moved |= self._card(place, gpu, ours, theirs)
        return moved

    def _kept(self, place: Place, before: CellBytes, after: CellBytes) -> bool:
        """Compare the number of storages and the growth, if both sides know them; return whether they changed."""
        moved = False
        blocks, now = before.live_blocks, after.live_blocks
        if blocks is not None and now is not None:
            moved = abs(now - blocks) * _ROUNDED_TO_BYTES > self._tolerance
            if moved:
                self.changes.append(BlocksChange(place, blocks, now, rise(blocks, now)))
        old, new = before.growth_bytes, after.growth_bytes
        if old is not None and new is not None and abs(new - old) > self._tolerance:
            self.changes.append(_bytes_change(place, "growth", None, old, new))
            moved = True
        return moved

    def _card(self, place: Place, gpu: str, before: CardBytes, after: CardBytes) -> bool:
        """Compare what a cell needs of a card; return whether requested bytes or the verdict changed."""
        if before.verdict != after.verdict:
            worse = _FROM_WORST.index(after.verdict) < _FROM_WORST.index(before.verdict)
            verdict: Verdict = "regression" if worse else "improvement"
            self.changes.append(FitChange(place, gpu, before.verdict, after.verdict, verdict))
            return True
        if before.verdict != "fits":
            return (
                False  # a simulation that ends for want of memory has the bytes of where it ended
            )
        moved = self._requested(place, gpu, before.requested_bytes, after.requested_bytes)
        sides: dict[BytesKind, tuple[int, int]] = {
            "allocated": (before.allocated_bytes, after.allocated_bytes),
            "reserved": (before.reserved_bytes, after.reserved_bytes),
        }
        for kind, (ours, theirs) in sides.items():
            if ours != theirs:
                self.changes.append(_bytes_change(place, kind, gpu, ours, theirs))
        return moved

    def _requested(self, place: Place, gpu: str | None, before: int, after: int) -> bool:
        """Note requested bytes that changed by more than the tolerance; return whether they did."""
        if abs(after - before) <= self._tolerance:
            return False
        self.changes.append(_bytes_change(place, "requested", gpu, before, after))
        return True

    def _largest(self, before: Group, after: Group) -> bool:
        """Compare the largest batch of each card and length; return whether any changed."""
        found = []
        ours, theirs = (
            {(one.gpu, one.max_length): one.batch for one in side.largest}
            for side in (before, after)
        )
        for gpu, length in sorted(ours.keys() | theirs.keys()):
            old, new = ours.get((gpu, length)), theirs.get((gpu, length))
            if old is None or new is None:
                missing = LargestBatchMissing(
                    after.settings, gpu, length, "baseline" if old is None else "now"
                )
                self.unjudged.append(missing)
            elif new != old:
                verdict: Verdict = "regression" if new < old else "improvement"
                found.append(LargestBatchChange(after.settings, gpu, length, old, new, verdict))
        self.changes += found
        return bool(found)

    def _slopes(self, before: Group, after: Group) -> None:
        """Note the slopes that changed. One that only one side has is of cells that only that side has."""
        now = {slope.edge: slope.bytes_per_unit for slope in after.slopes}
        for slope in before.slopes:
            old = slope.bytes_per_unit
            new = now.get(slope.edge, old)
            if old != new:
                change = SlopeChange(after.settings, *slope.edge, old, new, rise(old, new))
                self.changes.append(change)


def _of_tensors(change: Change) -> bool:
    """Return whether a change is of the peak or of what fits, not of the number of tensors or of growth alone."""
    if isinstance(change, BytesChange):
        return change.kind != "growth"
    return not isinstance(change, BlocksChange)


def _bytes_change(
    place: Place, kind: BytesKind, gpu: str | None, before: int, after: int
) -> BytesChange:
    return BytesChange(place, kind, gpu, before, after, rise(before, after))


def rise(before: float, after: float) -> Verdict:
    """Return the verdict on a figure of which less is better."""
    return "regression" if after > before else "improvement"


def _peak(group: Group) -> int:
    return sum(part.nbytes.get("peak", 0) for part in group.parts)
