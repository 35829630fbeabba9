"""An attribution of the gate in words: a peak before and after, and parts that add up to the difference."""

from __future__ import annotations

from collections.abc import Iterator

from ftbench.base.units import counted
from ftbench.gating.attribution import ChangedPart
from ftbench.gating.result import Attribution
from ftbench.records.prediction import Moment
from ftbench.report.commands.gate_sentences import cell_words, settings_prefix, signed

MOST_CHANGED_PARTS = 8  # lines of an attribution; the rest are one
_DTYPES = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}
_AT = {
    "before a step": ", kept from one step to the next",
    "in evaluation": ", in evaluation",
    "most": ", at its own largest",
}


def attribution_words(one: Attribution) -> Iterator[str]:
    """Yield which parts changed in a group, the heading first and their sum last."""
    where = settings_prefix(one.settings) + cell_words(one.reference)
    if not one.changed_parts:
        yield (
            f"{where}: no tensor changed, so the difference comes from a kernel's workspace or from the order"
            " in which memory is requested"
        )
        return
    yield f"{where}: {_peak_words(one)}:"
    for part in one.changed_parts[:MOST_CHANGED_PARTS]:
        yield f"  {changed_part_words(part)}"
    rest = one.changed_parts[MOST_CHANGED_PARTS:]
    if rest:
        total = signed(sum(part.delta_bytes for part in rest))
        yield f"  {total} in {counted(len(rest), 'more part')}"
    if one.delta_bytes:
        yield from _sum_words(one)


def _peak_words(one: Attribution) -> str:
    if not one.delta_bytes:
        return f"the peak stayed at {one.before_bytes:,} bytes, but these parts changed"
    rose = "rose" if one.delta_bytes > 0 else "fell"
    return (
        f"the peak {rose} from {one.before_bytes:,} to {one.after_bytes:,} bytes"
        f" ({signed(one.delta_bytes)}), in these parts"
    )


def _sum_words(one: Attribution) -> Iterator[str]:
    """Yield what the parts above lack to the peak's change, the change, and why they lack something."""
    for role, nbytes in one.remainder.items():
        yield f"  {signed(nbytes)}, other {role} at the peak"
    yield f"  {signed(one.delta_bytes)} in all ({one.delta_bytes:+,} bytes)"
    if one.remainder and one.is_elsewhere:
        before, after = map(_moment_words, one.moments)
        yield f"  the peak moved from {before} to {after}"


def _moment_words(moment: Moment) -> str:
    operator = moment.operator.replace("::", ".")
    names = " of ".join(filter(None, (operator, moment.module)))
    return f"the phase {moment.phase}" + (f" ({names})" if names else "")


def changed_part_words(one: ChangedPart) -> str:
    """Return a part that changed: by how much, as what, of which module and operator, from which line."""
    operator = one.operator.replace("::", ".")
    if one.dtype_after:
        before, after = (_DTYPES.get(d, d) for d in (one.dtype_before, one.dtype_after))
        operator = f"{operator} saved in {after} (was {before})".strip()
    line = f"({one.source})" if one.source else ""
    parts = (
        signed(one.delta_bytes),
        one.role,
        one.module,
        " ".join(filter(None, (operator, line))),
    )
    return ", ".join(part for part in parts if part) + _AT.get(one.mark, "")
