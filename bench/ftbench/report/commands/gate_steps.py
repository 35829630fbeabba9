"""What a failing test says of its training steps: the parts of a peak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ftbench.base.units import counted, format_bytes
from ftbench.prediction.breakdown.parts import part_keys
from ftbench.prediction.simulate.ignored_variables import ignored_variables
from ftbench.prediction.trace.events import Trace
from ftbench.records.prediction import MemoryBreakdown
from ftbench.report.commands.growth import MOST_PARTS


def peak_lines(parts: MemoryBreakdown) -> Iterator[str]:
    """Yield the parts of the peak of the bytes that tensors request, the largest first; they add up to it."""
    moment = parts.moment
    where = " in ".join(filter(None, (moment.operator or moment.phase, moment.module)))
    live = [part for part in parts.parts if part.nbytes.get("peak")]
    total = sum(part.nbytes["peak"] for part in live)
    yield f"tensors at their peak (step {moment.step}, {where}):"
    for part in live[:MOST_PARTS]:
        line = f" ({part.source})" if part.source else ""
        named = ", ".join(filter(None, (part.role, part.module, part.operator, part.dtype)))
        yield f"  {format_bytes(part.nbytes['peak']):>10}  {named}{line}"
    if rest := live[MOST_PARTS:]:
        nbytes = sum(part.nbytes["peak"] for part in rest)
        yield f"  {format_bytes(nbytes):>10}  in {counted(len(rest), 'more part')}"
    yield f"  {format_bytes(total):>10}  in all ({total:,} bytes)"


def reserved_lines(gpu: str, reserved_bytes: int, tensors_bytes: int) -> Iterator[str]:
    """Yield why a card reserves more than its tensors request."""
    yield (
        f"{gpu} would reserve {format_bytes(reserved_bytes - tensors_bytes)} more than these: its allocator takes"
        " memory in segments, and kernels need workspaces"
    )
    if ignored := ignored_variables():
        yield ignored


def block_lines(trace: Trace) -> Iterator[str]:
    """Yield which parts have the most live tensors at the peak."""
    keys = part_keys(trace)
    counts = Counter(keys[row] for row in trace.live_at(trace.peak_event) if trace.nbytes[row])
    yield f"{counted(sum(counts.values()), 'live tensor')} at the peak, most of them in:"
    for key, count in counts.most_common(MOST_PARTS):
        yield f"  {count:>10,}  {', '.join(filter(None, key))}"
    if len(counts) > MOST_PARTS:
        rest = sum(count for _, count in counts.most_common()[MOST_PARTS:])
        yield f"  {rest:>10,}  in {counted(len(counts) - MOST_PARTS, 'more part')}"
