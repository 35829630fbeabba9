"""Gate: what moved between a baseline and what is found now, and whether that may be. Pure.

Requested bytes decide, to the byte: they do not depend on the order in which modules are defined. Allocated
and reserved bytes do, so a change of theirs fails only where requested bytes of its group moved, or what fits.
Slopes are differences of peaks, and fail with these. A drop that nobody has accepted fails too: it hides the
next rise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from ftbench.base.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_OK
from ftbench.gate.attribution import ChangedPart, changed_parts
from ftbench.gate.baseline import Baseline, CardBytes, CellBytes, Group
from ftbench.gate.pytest_benchmark import Peaks
from ftbench.plan.settings import differing, memory_view

Verdict = Literal["regression", "drop", "explained"]
Kind = Literal[
    "requested",
    "allocated",
    "reserved",
    "slope",
    "largest batch",
    "fits",
    "measured peak",
    "time",
    "accuracy",
]


@dataclasses.dataclass(frozen=True)
class Change:
    """One figure that is another now. `explained` ones are told and do not fail.

    `where` names the cell, or what a slope or a largest batch is of; `of` the card (empty for tensors
    alone), or the measured figure. Figures are bytes, but for the largest batch (documents), whether a cell
    fits (words), times (seconds) and accuracy (a share). `note` has what else must be known.
    """

    group: str
    where: str
    kind: Kind
    of: str
    before: float | str
    after: float | str
    verdict: Verdict
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Which parts moved in a group, seen in its largest cell, whose peak moved by so many bytes."""

    group: str
    reference: str
    delta_bytes: int
    changed_parts: tuple[ChangedPart, ...]


@dataclasses.dataclass(frozen=True)
class Moved:
    """A library with another version than the baseline's."""

    package: str
    before: str
    after: str


@dataclasses.dataclass(frozen=True)
class GateResult:
    """What was compared, what moved, by what, and what could not be judged and why."""

    profile: str
    judged: tuple[tuple[str, str], ...]  # group and cell
    changes: tuple[Change, ...] = ()
    attributions: tuple[Attribution, ...] = ()
    unjudged: tuple[str, ...] = ()
    versions: tuple[Moved, ...] = ()
    notes: tuple[str, ...] = ()  # what was left alone, and why

    @property
    def failures(self) -> tuple[Change, ...]:
        """Return the changes that fail."""
        return tuple(change for change in self.changes if change.verdict != "explained")

    @property
    def exit_code(self) -> int:
        """Return 0 where all holds, 1 where something moved, 2 where not all could be judged, or nothing was."""
        if self.failures:
            return EXIT_FINDING
        return EXIT_BAD_INPUT if self.unjudged or not self.judged else EXIT_OK


def compare(
    before: Baseline,
    after: Baseline,
    *,
    tolerance_bytes: int = 0,
    across_versions: bool = False,
    across_workloads: bool = False,
    refused: Mapping[str, str] | None = None,
) -> GateResult:
    """Return what moved from a baseline to what is found now.

    Other versions of the libraries are not judged, unless `across_versions`; another workload or other cards
    are not, unless `across_workloads`, which is for showing what an update would write. `refused` has the
    groups that could not be predicted now, and why.
    """
    versions = tuple(_moved(before.versions, after.versions))
    elsewhere = tuple(_elsewhere(before, after))
    unjudged = [] if across_workloads else [*elsewhere]
    if versions and not across_versions:
        unjudged.append(_versions_words(versions))
    if unjudged:
        return GateResult(after.profile, (), unjudged=tuple(unjudged), versions=versions)
    comparison = _Comparison(tolerance_bytes, refused or {})
    for settings in _settings(before, after):
        comparison.groups(before.group(settings), after.group(settings))
    return GateResult(
        profile=after.profile,
        judged=tuple(comparison.judged),
        changes=tuple(comparison.changes),
        attributions=tuple(comparison.attributions),
        unjudged=tuple(comparison.unjudged),
        versions=versions,
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
    """Return which peaks of benchmarks moved by more than a tolerance; of them no parts are known."""
    versions = tuple(_moved(before.versions, after.versions))
    if versions and not across_versions:
        return GateResult(name, (), unjudged=(_versions_words(versions),), versions=versions)
    return dataclasses.replace(
        _moved_peaks(name, before.nbytes, after.nbytes, tolerance_bytes), versions=versions
    )


def _moved_peaks(
    name: str, before: Mapping[str, int], after: Mapping[str, int], tolerance_bytes: int
) -> GateResult:
    there = [one for one in before if one in after]
    changes = [
        Change("", one, "requested", "", before[one], after[one], _verdict(before[one], after[one]))
        for one in there
        if abs(after[one] - before[one]) > tolerance_bytes
    ]
    unjudged = [f"{one}: it was not found now" for one in before if one not in after]
    unjudged += [f"{one}: there is no baseline" for one in after if one not in before]
    judged = tuple(("", one) for one in there)
    return GateResult(name, judged, tuple(changes), unjudged=tuple(unjudged))


def _settings(before: Baseline, after: Baseline) -> list[dict[str, Any]]:
    """Return the settings of all groups, the baseline's first."""
    found = [group.settings for group in before.groups]
    return found + [g.settings for g in after.groups if g.settings not in found]


def _moved(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Moved]:
    """Yield the packages whose versions differ; of which build (`+cpu`) they are moves no bytes."""
    for package in sorted(before.keys() | after.keys()):
        one, other = before.get(package, "none"), after.get(package, "none")
        if one != other:
            yield Moved(package, one, other)


def _versions_words(versions: Iterable[Moved]) -> str:
    named = ", ".join(f"{one.package} {one.before} -> {one.after}" for one in versions)
    return f"other versions than the baseline's: {named}"


def _elsewhere(before: Baseline, after: Baseline) -> Iterator[str]:
    """Yield why two baselines are not of one and the same thing."""
    yield from others("workload", memory_view(before.workload), memory_view(after.workload))
    yield from others("card", before.architectures, after.architectures)
    if before.attention_kernel != after.attention_kernel:
        yield (
            "another attention kernel is asked for than in the baseline:"
            f" {before.attention_kernel or 'any'} -> {after.attention_kernel or 'any'}"
        )


def others(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a workload, a machine or the like is another than the baseline's."""
    for name in differing(before, after):
        yield (
            f"another {what} than the baseline's: {name} {before.get(name, 'absent')} ->"
            f" {after.get(name, 'absent')}"
        )


class _Comparison:
    """Collects what moved, group by group."""

    def __init__(self, tolerance_bytes: int, refused: Mapping[str, str]) -> None:
        self._tolerance = tolerance_bytes
        self._refused = refused
        self.judged: list[tuple[str, str]] = []
        self.changes: list[Change] = []
        self.attributions: list[Attribution] = []
        self.unjudged: list[str] = []
        self.notes: list[str] = []

    def groups(self, before: Group | None, after: Group | None) -> None:
        """Compare two groups with the same settings; one that is missing is not judged."""
        there = before or after
        assert there is not None
        whose = f"{there.name}: " if there.name else ""
        if before is None or after is None:
            why = self._refused.get(there.name, "")
            side = "there is no baseline" if before is None else "it was not found now"
            self.unjudged.append(f"{whose}{side}{f' ({why})' if why else ''}")
            return
        for name in dict.fromkeys([*before.cells, *after.cells]):
            if name not in before.cells or name not in after.cells:
                side = "there is no baseline" if name not in before.cells else "it was not found"
                self.unjudged.append(f"{whose}{name}: {side}")
        first = len(self.changes)
        if before.attention != after.attention:
            ours, theirs = (", ".join(of.attention) or "none" for of in (before, after))
            self.notes.append(f"{whose}another kernel of attention: {ours} -> {theirs}")
        moved = self._cells(before, after) | self._largest(before, after)
        self._slopes(before, after)
        if not moved:
            self.changes[first:] = [
                dataclasses.replace(change, verdict="explained") for change in self.changes[first:]
            ]
        elif before.reference != after.reference:
            self.notes.append(
                f"{whose}what moved is not told: the parts are those of {before.reference} in the baseline,"
                f" of {after.reference} now"
            )
        else:
            found = changed_parts(before.breakdown, after.breakdown)
            delta = _peak(after) - _peak(before)
            self.attributions.append(Attribution(after.name, after.reference, delta, tuple(found)))

    def _cells(self, before: Group, after: Group) -> bool:
        """Compare peaks and what fits; return whether any moved by more than it may."""
        moved = False
        for name in before.cells:
            if name in after.cells:
                self.judged.append((after.name, name))
                moved |= self._cell(after.name, name, before.cells[name], after.cells[name])
        return moved

    def _cell(self, group: str, name: str, before: CellBytes, after: CellBytes) -> bool:
        moved = self._bytes(group, name, "", before.tensors_bytes, after.tensors_bytes)
        for card in dict.fromkeys([*before.cards, *after.cards]):
            ours, theirs = before.cards.get(card), after.cards.get(card)
            if ours is None or theirs is None:
                side = "in the baseline" if ours is None else "now"
                self.unjudged.append(f"{_of(group, name)}: nothing of {card} {side}")
            else:
                moved |= self._card(group, name, card, ours, theirs)
        return moved

    def _card(self, group: str, name: str, card: str, before: CardBytes, after: CardBytes) -> bool:
        """Compare what a cell needs of a card; return whether requested bytes or the verdict moved."""
        if before.verdict != after.verdict:
            better = ("does not fit", "too close to call", "fits")
            worse = better.index(after.verdict) < better.index(before.verdict)
            verdict: Verdict = "regression" if worse else "drop"
            self.changes.append(
                Change(group, name, "fits", card, before.verdict, after.verdict, verdict)
            )
            return True
        if before.verdict != "fits":
            return False  # where it ends for want of memory, its bytes are those of an order
        moved = self._bytes(group, name, card, before.requested_bytes, after.requested_bytes)
        kinds: tuple[Kind, ...] = ("allocated", "reserved")
        for kind in kinds:
            ours, theirs = (getattr(side, f"{kind}_bytes") for side in (before, after))
            if ours != theirs:
                change = Change(group, name, kind, card, ours, theirs, _verdict(ours, theirs))
                self.changes.append(change)
        return moved

    def _bytes(self, group: str, name: str, card: str, before: int, after: int) -> bool:
        """Note requested bytes that moved by more than the tolerance; return whether they did."""
        if abs(after - before) <= self._tolerance:
            return False
        verdict = _verdict(before, after)
        self.changes.append(Change(group, name, "requested", card, before, after, verdict))
        return True

    def _largest(self, before: Group, after: Group) -> bool:
        """Compare the largest batch of each length and card; return whether any moved."""
        found = []
        sides = (before.largest, after.largest)
        places = {(card, where) for side in sides for card in side for where in side[card]}
        for card, where in sorted(places):
            ours, now = (side.largest.get(card, {}).get(where) for side in (before, after))
            if ours is None or now is None:
                side = "in the baseline" if ours is None else "now"
                self.unjudged.append(f"{_of(after.name, where)}: no largest batch of {card} {side}")
            elif now != ours:
                verdict: Verdict = "regression" if now < ours else "drop"
                found.append(Change(after.name, where, "largest batch", card, ours, now, verdict))
        self.changes += found
        return bool(found)

    def _slopes(self, before: Group, after: Group) -> None:
        """Note the slopes that are others. One that only one side has is of cells that are."""
        for name, ours in before.slopes.items():
            theirs = after.slopes.get(name, ours)
            if ours != theirs:
                verdict = _verdict(ours, theirs)
                self.changes.append(Change(after.name, name, "slope", "", ours, theirs, verdict))


def _of(group: str, where: str) -> str:
    return ": ".join(filter(None, (group, where)))


def _verdict(before: float, after: float) -> Verdict:
    return "regression" if after > before else "drop"


def _peak(group: Group) -> int:
    return sum(part.nbytes.get("peak", 0) for part in group.parts)
