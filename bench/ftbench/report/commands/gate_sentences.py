"""The gate's sentences: places, changes and reasons in words. One function per type of value."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ftbench.base.units import MIB, counted, format_bytes, format_ratio, format_seconds
from ftbench.gating import reasons
from ftbench.gating.places import CellKey, NamedSteps, Place
from ftbench.gating.reasons import Reason, SettingChange, Side, VersionChange
from ftbench.gating.result import (
    BlocksChange,
    BytesChange,
    Change,
    FitChange,
    LargestBatchChange,
    MeasuredPeakChange,
    OutOfMemory,
    ScoreChange,
    SlopeChange,
    TimeChange,
)
from ftbench.plan.settings import setting
from ftbench.records.invariants import UNTRUSTED
from ftbench.report.elements.table import ABSENT
from ftbench.report.elements.words import FIGURE_WORDS, point_text, score_word

_FIGURES = FIGURE_WORDS | {"step_min_s": "step (fastest)"}


# Places


def settings_words(settings: Mapping[str, Any]) -> str:
    """Return what tells a group apart: `attn_implementation eager, bf16 on`; empty for the only group."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _plain(value: Any) -> str:
    words = {"True": "on", "False": "off", "None": "default"}
    return words.get(str(value), str(value))


def cell_words(cell: CellKey) -> str:
    """Return which cell of its group it is: `length 64, batch 8`, or the name of steps."""
    if isinstance(cell, NamedSteps):
        return cell.name
    return point_text(cell.model_dump(exclude_none=True))


def _place_words(place: Place) -> str:
    return settings_prefix(place.settings) + cell_words(place.cell)


def settings_prefix(settings: Mapping[str, Any]) -> str:
    """Return what tells a group apart, as the beginning of a sentence; empty for the only group."""
    words = settings_words(settings)
    return f"{words}: " if words else ""


def _figure_word(name: str) -> str:
    return _FIGURES.get(name, name)


# Changes


class ChangeWords(NamedTuple):
    """A change in words: of which cell, slope or length; which figure; both values; their difference; a note."""

    where: str
    figure: str
    before: str
    after: str
    difference: str = ABSENT
    note: str = ""


@functools.singledispatch
def change_words(change: Change) -> ChangeWords:
    """Return a change in words; bytes in full, so that one byte shows."""
    raise TypeError(type(change))


@change_words.register
def _(change: BytesChange) -> ChangeWords:
    kind = "requested bytes" if change.kind == "requested" else change.kind
    of_tensors = "growth over the last steps" if change.kind == "growth" else "tensors"
    figure = f"{change.gpu} {kind}" if change.gpu else of_tensors
    return ChangeWords(cell_words(change.place.cell), figure, *_bytes(change.before, change.after))


@change_words.register
def _(change: BlocksChange) -> ChangeWords:
    return ChangeWords(
        cell_words(change.place.cell),
        "live tensors at the peak",
        f"{change.before:,}",
        f"{change.after:,}",
        f"{change.after - change.before:+,}",
        "a card rounds each up to a multiple of 512 bytes",
    )


@change_words.register
def _(change: FitChange) -> ChangeWords:
    where = cell_words(change.place.cell)
    return ChangeWords(where, f"fits on {change.gpu}", change.before, change.after)


@change_words.register
def _(change: SlopeChange) -> ChangeWords:
    """Name the fixed axis first: `length 64, batch 16 to 32`."""
    fixed, unit = (
        ("length", "sample") if change.axis == "per_device_train_batch_size" else ("batch", "token")
    )
    along = "batch" if fixed == "length" else "length"
    return ChangeWords(
        f"{fixed} {change.fixed}, {along} {change.low} to {change.high}",
        f"bytes per {unit}",
        f"{change.before:,.10g}",
        f"{change.after:,.10g}",
        f"{change.after - change.before:+,.10g}",
    )


@change_words.register
def _(change: LargestBatchChange) -> ChangeWords:
    return ChangeWords(
        f"length {change.max_length}",
        f"{change.gpu} largest batch",
        f"{change.before:,}",
        f"{change.after:,}",
        f"{change.after - change.before:+,}",
    )


@change_words.register
def _(change: MeasuredPeakChange) -> ChangeWords:
    if change.readings is None:
        note = f"more than {change.allowed_bytes / change.before:.1%}"
    else:
        allowed = f"{change.allowed_bytes / MIB:.0f} MiB"
        note = f"more than {allowed}, by the spread of {change.readings} runs"
    return ChangeWords(
        cell_words(change.place.cell),
        _figure_word(change.figure),
        *_bytes(change.before, change.after),
        note,
    )


@change_words.register
def _(change: OutOfMemory) -> ChangeWords:
    return ChangeWords(cell_words(change.place.cell), "outcome", "ok", "out of memory")


@change_words.register
def _(change: ScoreChange) -> ChangeWords:
    seeds = " and ".join(map(str, change.seeds))
    return ChangeWords(
        cell_words(change.place.cell),
        score_word(change.score),
        f"{change.before:.3f}",
        f"{change.after:.3f}",
        f"{change.after - change.before:+.3f}",
        f"over {seeds} seeds, p = {change.p_value:.2g}",
    )


@change_words.register
def _(change: TimeChange) -> ChangeWords:
    return ChangeWords(
        cell_words(change.place.cell),
        _figure_word(change.figure),
        format_seconds(change.before),
        format_seconds(change.after),
        format_ratio(change.after / change.before),
        f"{change.ratio:.3f}x over {change.pairs} pairs, p = {change.p_value:.2g}",
    )


def _bytes(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:,.0f}", f"{after:,.0f}", signed(int(after - before))


def signed(delta: int) -> str:
    """Return a difference of bytes: `+12.6 MiB`, `-512 B`."""
    return f"{'-' if delta < 0 else '+'}{format_bytes(abs(delta))}"


# Reasons


@functools.singledispatch
def reason_words(reason: Reason) -> str:
    """Return in a sentence why something was not judged, or what must be known beside the verdict."""
    raise TypeError(type(reason))


@reason_words.register
def _(reason: reasons.Failed) -> str:
    return reason.message


def versions_words(versions: Sequence[VersionChange]) -> str:
    """Return which packages changed: `torch 2.13.0 -> 2.14.0`."""
    return ", ".join(
        f"{one.package} {one.before or 'none'} -> {one.after or 'none'}" for one in versions
    )


def setting_changes_words(changes: Sequence[SettingChange]) -> str:
    """Return which settings changed: `attn_implementation sdpa -> eager`."""
    return ", ".join(
        f"{one.name} {_value(one.name, one.before)} -> {_value(one.name, one.after)}"
        for one in changes
    )


def _value(name: str, value: Any) -> str:
    default = setting(name).default
    return _plain(default if value is None and default is not None else value)


@reason_words.register
def _(reason: reasons.OtherVersions) -> str:
    return f"the versions differ from the baseline's: {versions_words(reason.versions)}"


@reason_words.register
def _(reason: reasons.Differs) -> str:
    absent = "any" if reason.what == "attention kernel" else "absent"
    before, after = (absent if v is None else v for v in (reason.before, reason.after))
    name = f"{reason.name} " if reason.name else ""
    return f"the {reason.what} differs from the baseline's: {name}{before} -> {after}"


def _no_figures(side: Side, of: str = "") -> str:
    if side == "baseline":
        return f"the baseline has no figures{of}"
    return f"there are no figures{of} now"


@reason_words.register
def _(reason: reasons.GroupMissing) -> str:
    why = f" ({reason.why})" if reason.why else ""
    words = settings_words(reason.settings) or "the group of all cells"
    return f"{words}: {_no_figures(reason.side)}{why}"


@reason_words.register
def _(reason: reasons.CellMissing) -> str:
    return f"{_place_words(reason.place)}: {_no_figures(reason.side)}"


@reason_words.register
def _(reason: reasons.CardMissing) -> str:
    return f"{_place_words(reason.place)}: {_no_figures(reason.side, f' for {reason.gpu}')}"


@reason_words.register
def _(reason: reasons.LargestBatchMissing) -> str:
    where = f"{settings_prefix(reason.settings)}length {reason.max_length}"
    if reason.side == "baseline":
        return f"{where}: the baseline has no largest batch for {reason.gpu}"
    return f"{where}: there is no largest batch for {reason.gpu} now"


@reason_words.register
def _(reason: reasons.OtherKernels) -> str:
    before, after = (", ".join(kernels) or "none" for kernels in (reason.before, reason.after))
    return f"{settings_prefix(reason.settings)}the fused attention kernels changed: {before} -> {after}"


@reason_words.register
def _(reason: reasons.OtherReference) -> str:
    return (
        f"{settings_prefix(reason.settings)}the change is not attributed to parts: the baseline has the parts of"
        f" {cell_words(reason.before)}, the prediction those of {cell_words(reason.after)}"
    )


@reason_words.register
def _(reason: reasons.FigureMissing) -> str:
    return f"{_place_words(reason.place)}: {_figure_word(reason.figure)} was not measured now"


@reason_words.register
def _(reason: reasons.NoMemoryFigure) -> str:
    return (
        f"{_place_words(reason.place)}: the baseline's runs have no memory figure to compare with"
    )


@reason_words.register
def _(reason: reasons.TooFewReadings) -> str:
    return (
        f"{_place_words(reason.place)}: {_figure_word(reason.figure)} was measured in"
        f" {counted(reason.runs, 'run')} of the baseline only; to know how much it varies,"
        f" {reason.needed} are needed"
    )


@reason_words.register
def _(_reason: reasons.SingleSeed) -> str:
    return "scores are not judged: no cell has runs with two seeds, so the seed may explain a fall"


@reason_words.register
def _(reason: reasons.NoTimes) -> str:
    return f"time is not judged at {_place_words(reason.place)}: no time was measured on both sides"


@reason_words.register
def _(reason: reasons.NotAlternating) -> str:
    if reason.kept:
        return "time is not judged: that needs two run directories (--runs and --base) whose runs alternate"
    return "time is not judged: the two versions' runs do not alternate, and machines drift"


@reason_words.register
def _(reason: reasons.TooFewPairs) -> str:
    return (
        f"time is not judged: a cell has {counted(reason.pairs, 'pair')} of runs, and"
        f" {reason.needed} are needed"
    )


@reason_words.register
def _(reason: reasons.TooFewPairsForAll) -> str:
    places = "; ".join(map(_place_words, reason.places))
    return (
        f"time is not judged at {places}: {reason.figures} figures are judged together, which needs"
        f" {reason.needed} pairs of runs of each cell"
    )


@reason_words.register
def _(reason: reasons.RunsLeftOut) -> str:
    if reason.status == UNTRUSTED:
        have = "has" if reason.count == 1 else "have"
        return f"{counted(reason.count, 'run')} {have} figures that cannot be right"
    return f"{counted(reason.count, 'run')} ended as {reason.status}"


@reason_words.register
def _(reason: reasons.RecordsUnreadable) -> str:
    return f"{counted(reason.count, 'record')} cannot be read"


@reason_words.register
def _(reason: reasons.CellsNotRun) -> str:
    return f"{counted(reason.count, 'cell')} of the profile {'has' if reason.count == 1 else 'have'} no run"


@reason_words.register
def _(reason: reasons.EnvironmentsUnknown) -> str:
    named = ", ".join(reason.environment_ids)
    return f"some runs were measured in an environment that the run directory does not describe: {named}"
