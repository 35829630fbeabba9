"""A snapshot compared with a prediction: the verdict, what differs, figures and notes, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from ftbench.base.units import byte_unit, counted, format_bytes
from ftbench.records.predicted_allocations import PredictedPart
from ftbench.records.prediction import Predictions
from ftbench.report.commands.prediction import figure_text
from ftbench.report.elements.table import ABSENT, Table
from ftbench.snapshot.frames import Frame
from ftbench.snapshot.result import Comparison, Difference, Kind, Nearest

MOST_ROWS = 20  # lines of a table; the rest are one
_UNKNOWN_LINE = "(no Python line)"
_KINDS: dict[Kind, str] = {
    "extra": "not predicted",
    "missing": "not in the snapshot",
    "size": "another size",
    "stream": "another stream",
    "freed later": "freed later",
    "freed earlier": "freed earlier",
    "kept": "never freed",
}
_WHEN = {"peak": "the recorded peak", "end": "the end of the recording"}
_FIGURES = {
    "requested": "requested, the bytes that tensors ask for",
    "allocated": "allocated (torch.cuda.memory_allocated)",
    "active": "active, with blocks that other streams still use",
    "reserved": "reserved (torch.cuda.memory_reserved)",
    "process": "the process, with the CUDA context (nvidia-smi)",
}


def tables(found: Comparison) -> Iterator[Table]:
    """Yield the tables: figures, what differs, what differs from before the recording, and lines of code."""
    yield _figures(found)
    if found.differences:
        yield _differences(found)
    if found.earlier:
        yield _earlier(found)
    rows = [one for one in found.by_line if one.snapshot_bytes != one.predicted_bytes]
    if rows:
        yield _by_line(found)


def lines(found: Comparison) -> Iterator[str]:
    """Yield the verdict, and then one line for each thing to know."""
    yield _headline(found)
    yield ""
    yield from _first_difference(found)
    yield from _beginning(found)
    yield from _limits(found)
    yield from _circumstances(found)
    for nearest in found.nearest:
        yield _nearest(nearest)


def _headline(found: Comparison) -> str:
    how = found.agreement
    compared = how.recorded - how.beyond
    if not found.has_events:
        return f"The snapshot of device {found.device} has no events: only categories of what is live are compared."
    if not found.ordered:
        return (
            f"The order of allocations on device {found.device} is not the predicted one ({how.alike:,} of"
            f" {compared:,} follow it), so only categories are compared, each at its own peak."
        )
    if found.agrees:
        return (
            f"The snapshot agrees with the prediction: {counted(compared, 'allocation')} on device {found.device},"
            " each with its predicted size, stream and release."
        )
    share = how.equal_bytes / max(how.recorded_bytes, 1)
    return (
        f"The snapshot differs from the prediction: of {counted(how.recorded, 'allocation')} on device"
        f" {found.device}, {how.equal:,} are as predicted ({share:.1%} of the bytes)."
    )


def _figures(found: Comparison) -> Table:
    known = [row.peak_bytes for row in found.figures if row.peak_bytes is not None]
    unit = byte_unit(known)
    rows = [
        (
            row.name,
            ABSENT if row.peak_bytes is None else format_bytes(row.peak_bytes, unit),
            ABSENT if row.end_bytes is None else format_bytes(row.end_bytes, unit),
            ABSENT if row.predicted is None else figure_text(row.predicted, unit),
        )
        for row in found.figures
    ]
    return Table(
        title="Figures",
        columns=("figure", "recorded peak", "at the end", "predicted peak"),
        rows=tuple(rows),
        numeric=(False, True, True, True),
    )


def _differences(found: Comparison) -> Table:
    rows = [
        (
            _KINDS[one.kind],
            f"{one.count:,}",
            format_bytes(one.nbytes) if one.nbytes else ABSENT,
            format_bytes(one.expected_bytes) if one.expected_bytes else ABSENT,
            _signed(one.peak_bytes),
            _line(one.frame) if one.kind != "missing" else ABSENT,
            _part(one.part),
        )
        for one in found.differences[:MOST_ROWS]
    ]
    rest = found.differences[MOST_ROWS:]
    if rest:
        count, moved = sum(one.count for one in rest), sum(one.peak_bytes for one in rest)
        rows.append(("the rest", f"{count:,}", ABSENT, ABSENT, _signed(moved), ABSENT, ABSENT))
    return Table(
        title="What differs",
        columns=("difference", "number", "size", "predicted", "at the peak", "line", "prediction"),
        rows=tuple(rows),
        numeric=(False, True, True, True, True, False, False),
        optional=("prediction", "predicted", "size"),  # the line matters most
    )


def _earlier(found: Comparison) -> Table:
    rows = [
        (
            "not predicted" if one.live_bytes > 0 else "not in the snapshot",
            f"{one.count:,}",
            format_bytes(one.nbytes),
            _signed(one.live_bytes),
            _line(one.frame) if one.live_bytes > 0 else ABSENT,
            _part(one.part),
        )
        for one in found.earlier[:MOST_ROWS]
    ]
    rest = found.earlier[MOST_ROWS:]
    if rest:
        count, moved = sum(one.count for one in rest), sum(one.live_bytes for one in rest)
        rows.append(("the rest", f"{count:,}", ABSENT, _signed(moved), ABSENT, ABSENT))
    return Table(
        title="What differs of the blocks from before the recording",
        columns=("difference", "number", "size", "at the peak", "line", "prediction"),
        rows=tuple(rows),
        numeric=(False, True, True, True, False, False),
        optional=("prediction",),
    )


def _by_line(found: Comparison) -> Table:
    unit = byte_unit([found.snapshot_bytes, found.predicted_bytes])
    moved = [one for one in found.by_line if one.snapshot_bytes != one.predicted_bytes]
    rows: list[tuple[str, ...]] = [
        (
            one.source or _UNKNOWN_LINE,
            format_bytes(one.snapshot_bytes, unit),
            format_bytes(one.predicted_bytes, unit),
            _signed(one.snapshot_bytes - one.predicted_bytes),
        )
        for one in moved[:MOST_ROWS]
    ]
    shown = moved[:MOST_ROWS]
    sums = [
        total - sum(getattr(one, name) for one in shown)
        for total, name in (
            (found.snapshot_bytes, "snapshot_bytes"),
            (found.predicted_bytes, "predicted_bytes"),
        )
    ]
    if any(sums):
        values = (format_bytes(value, unit) for value in sums)
        rows.append(("all other lines", *values, _signed(sums[0] - sums[1])))
    whole = (format_bytes(found.snapshot_bytes, unit), format_bytes(found.predicted_bytes, unit))
    rows.append(("all", *whole, _signed(found.snapshot_bytes - found.predicted_bytes)))
    peak = "at the compared peak" if found.ordered else "at the peak of each"
    return Table(
        title=f"Live bytes by line of code, {peak}",
        columns=("line", "snapshot", "prediction", "difference"),
        rows=tuple(rows),
        numeric=(False, True, True, True),
    )


def _first_difference(found: Comparison) -> Iterator[str]:
    if not found.differences:
        return
    first = min(found.differences, key=lambda one: one.first)
    yield f"The first difference is at allocation {first.first + 1:,}: {_told(first)}."


def _told(one: Difference) -> str:
    """Return a difference in words."""
    line = f" at {_line(one.frame)}" if one.frame.source else ""
    part = _part(one.part)
    if one.kind == "extra":
        return f"{format_bytes(one.nbytes)}{line}, which are not predicted"
    if one.kind == "missing":
        return (
            f"{format_bytes(one.expected_bytes)} of {part} are predicted, and not in the snapshot"
        )
    if one.kind == "size":
        sizes = f"{format_bytes(one.nbytes)} instead of {format_bytes(one.expected_bytes)}"
        return f"{sizes}{line} ({part})"
    return f"{format_bytes(one.nbytes)}{line} ({part}), {_KINDS[one.kind]}"


def _beginning(found: Comparison) -> Iterator[str]:
    if found.begins == "later":
        blocks = counted(found.earlier_blocks, "block")
        yield (
            f"The recording begins with {blocks} ({format_bytes(found.earlier_bytes)}) allocated before it: it was"
            " switched on later, or its buffer (max_entries) has lost the beginning. The peaks of allocated and"
            " active may be a little low, since a block's rounding is not recorded once it is freed."
        )
    if found.agreement.skipped:
        skipped = counted(found.agreement.skipped, "predicted allocation")
        yield f"It is compared from the place where the two go on alike; {skipped} come before that."


def _limits(found: Comparison) -> Iterator[str]:
    how = found.agreement
    if how.beyond:
        yield (
            f"Not compared: the last {counted(how.beyond, 'allocation')}, after the end of what is predicted."
        )
    if how.unaligned:
        yield (
            f"Not compared: the last {counted(how.unaligned, 'allocation')}, which have nothing in common with the"
            " prediction."
        )
    if how.not_reached:
        yield (
            f"The recording ends before {counted(how.not_reached, 'further predicted allocation')}."
        )
    if not found.has_segments:
        yield "The file has no segments: what was allocated before the recording, and reserved, is not known."
    if found.has_events and not found.has_frames:
        yield "The events have no stacks: record with context='all' to see lines of code."
    if found.frees_missing:
        yield (
            f"{counted(found.frees_missing, 'release')} were not recorded; their blocks end when their address is"
            " used again."
        )
    if found.unexplained_blocks:
        yield (
            f"Allocated and active are not exact: {counted(found.unexplained_blocks, 'block')} of the segments have"
            " another size than the events say."
        )


def _circumstances(found: Comparison) -> Iterator[str]:
    for failure in found.out_of_memory:
        line = f" at {_line(failure.frame)}" if failure.frame.source else ""
        yield (
            f"Out of memory after {counted(failure.row, 'allocation')}: {format_bytes(failure.nbytes)} were"
            f" requested{line}, and the card had {format_bytes(failure.device_free)} left."
        )
    if found.private_rows or found.private_bytes:
        yield (
            f"{counted(found.private_rows, 'allocation')} were in private pools, as of CUDA graphs, for which"
            f" {format_bytes(found.private_bytes)} are reserved; predictions have no such pools."
        )
    if found.expandable:
        yield "The segments are expandable, and are predicted so."
    others = [(n, v) for n, v in found.settings if n not in _PREDICTED_SETTINGS]
    if others:
        told = ", ".join(f"{name}={value}" for name, value in others)
        yield f"Settings of the allocator that are not predicted: {told}."


_PREDICTED_SETTINGS = ("expandable_segments", "PYTORCH_CUDA_ALLOC_CONF")


def _nearest(one: Nearest) -> str:
    observed = format_bytes(one.observed_bytes)
    what = _FIGURES[one.name]
    when = f"at {_WHEN[one.when]}" if one.when in _WHEN else "as predicted at its peak"
    if one.low_bytes == one.high_bytes:
        value = format_bytes(one.low_bytes)
    else:
        value = f"{format_bytes(one.low_bytes)} to {format_bytes(one.high_bytes)}"
    off = f"off by {_signed(one.distance_bytes)}" if one.distance_bytes else "which agrees"
    return f"{observed} is nearest to {what} {when}: {value}, {off}."


def _signed(nbytes: int) -> str:
    return f"{'+' if nbytes > 0 else ''}{format_bytes(nbytes)}" if nbytes else "0"


def _line(frame: Frame) -> str:
    function = f" ({frame.function})" if frame.function else ""
    return f"{frame.source}{function}" if frame.source else _UNKNOWN_LINE


def _part(part: PredictedPart | None) -> str:
    if part is None:
        return ABSENT
    where = f"{part.phase}, step {part.step}" if part.step else part.phase
    names = ", ".join(filter(None, (part.role, part.module, part.operator)))
    return f"{names} ({where})"


def comparison_json(found: Comparison, predictions: Predictions, subject: str) -> dict[str, Any]:
    """Return a comparison as JSON data, with the subject and the versions of its prediction."""
    return {
        "subject": subject,
        "agrees": found.agrees,
        "versions": dict(predictions.versions),
        "notes": list(predictions.notes),
        **to_jsonable_python(found),
    }
