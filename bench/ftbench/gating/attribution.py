"""Attribution: which parts of memory moved between two versions of one cell's steps. Pure.

Two peaks are of one moment or of two. Of one, the difference of what is live is the answer, to the byte.
Of two, most of what is live is exchanged, and says nothing: then the parts are compared at the fixed moment
nearest to the new peak at which as much moved as would explain most of it. What is live at none (a buffer
inside an operator) shows in the most that a part ever is. A part that has only got another name (module, role
and element type otherwise alike, and as many bytes at every mark) is none.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

from ftbench.records.prediction import MARKS, MarkName, MemoryBreakdown, Part

# The fixed moments that bear on a peak in a phase, the nearest first.
_NEAR: Mapping[str, tuple[MarkName, ...]] = {
    "setup": ("before a step",),
    "input": ("before a step", "after forward"),
    "forward": ("after forward", "before a step"),
    "backward": ("after forward", "after backward", "before a step"),
    "after backward": ("after backward", "before a step"),
    "optimizer": ("in the optimizer", "after backward", "before a step"),
    "evaluation": ("in evaluation", "before a step"),
}
# The share of a peak's change that must be seen at a moment, or it is another that explains it.
_EXPLAINED = 0.5

_Key = tuple[str, str, str]
_Names = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True)
class ChangedPart:
    """A part that moved, by how many bytes, and at which mark that was seen.

    `dtype_before` and `dtype_after` are set if its element type has changed. `source` is the line of
    code that asks for it.
    """

    role: str
    module: str
    operator: str
    delta_bytes: int
    mark: MarkName
    dtype_before: str = ""
    dtype_after: str = ""
    source: str = ""


def changed_parts(before: MemoryBreakdown, after: MemoryBreakdown) -> list[ChangedPart]:
    """Return the parts that moved, those that explain the change of the peak first; empty if none did."""
    ours, theirs = _unmatched(before.parts, after.parts)
    mark = _mark(before, after, ours, theirs)
    found = _at(mark, ours, theirs)
    if not found and mark != "most":
        found = _at("most", ours, theirs)
    growing = _total(after.parts, "peak") >= _total(before.parts, "peak")
    found.sort(key=lambda one: (-one.delta_bytes if growing else one.delta_bytes, one.module))
    return found


def remainder(
    before: MemoryBreakdown, after: MemoryBreakdown, found: Iterable[ChangedPart]
) -> dict[str, int]:
    """Return by role what parts lack to the change of the peak, in bytes; with them, it adds up to the change."""
    missing: dict[str, int] = defaultdict(int)
    for parts, sign in ((after.parts, 1), (before.parts, -1)):
        for part in parts:
            missing[part.role] += sign * part.nbytes.get("peak", 0)
    for changed in found:
        missing[changed.role] -= changed.delta_bytes
    return {role: nbytes for role, nbytes in missing.items() if nbytes}


def _mark(
    before: MemoryBreakdown, after: MemoryBreakdown, ours: Iterable[Part], theirs: Iterable[Part]
) -> MarkName:
    """Return the mark at which to compare."""
    same = [(m.phase, m.module, m.operator) for m in (before.moment, after.moment)]
    if same[0] == same[1]:
        return "peak"
    moved = _total(after.parts, "peak") - _total(before.parts, "peak")
    for mark in _NEAR.get(after.moment.phase, ()):
        delta = _total(theirs, mark) - _total(ours, mark)
        if delta * moved > 0 and abs(delta) >= _EXPLAINED * abs(moved):
            return mark
    return "most"


def _total(parts: Iterable[Part], mark: MarkName) -> int:
    return sum(part.nbytes.get(mark, 0) for part in parts)


def _unmatched(before: Iterable[Part], after: Iterable[Part]) -> tuple[list[Part], list[Part]]:
    """Return the parts of both sides that the other has not, under this name or another."""
    ours, theirs = ({_names(part): part for part in side} for side in (before, after))
    for name in ours.keys() & theirs.keys():
        if ours[name].nbytes == theirs[name].nbytes:
            del ours[name], theirs[name]
    renamed: dict[tuple[object, ...], list[_Names]] = defaultdict(list)
    for name, part in ours.items():
        if name not in theirs:
            renamed[_content(part)].append(name)
    for name in [name for name in theirs if name not in ours]:
        if old := renamed.get(_content(theirs[name])):
            del ours[old.pop()], theirs[name]
    return list(ours.values()), list(theirs.values())


def _names(part: Part) -> _Names:
    return part.role, part.module, part.operator, part.dtype


def _content(part: Part) -> tuple[object, ...]:
    """Return all of a part but its module's name."""
    return (part.role, part.operator, part.dtype, *(part.nbytes.get(mark, 0) for mark in MARKS))


def _at(mark: MarkName, before: Iterable[Part], after: Iterable[Part]) -> list[ChangedPart]:
    """Return what moved at a mark; element types of one part are taken together."""
    sides: list[dict[_Key, list[Part]]] = []
    for side in (before, after):
        by_key: dict[_Key, list[Part]] = defaultdict(list)
        for part in side:
            if part.nbytes.get(mark, 0):
                by_key[part.role, part.module, part.operator].append(part)
        sides.append(by_key)
    found = []
    for key in dict.fromkeys([*sides[1], *sides[0]]):
        old, new = sides[0].get(key, []), sides[1].get(key, [])
        delta = sum(p.nbytes[mark] for p in new) - sum(p.nbytes[mark] for p in old)
        if not delta:
            continue
        types = [_type(old, mark, new), _type(new, mark, old)]
        largest = max([*(new or old)], key=lambda part: part.nbytes[mark])
        changed = bool(old and new) and types[0] != types[1]
        found.append(
            ChangedPart(
                *key,
                delta_bytes=delta,
                mark=mark,
                dtype_before=types[0] if changed else "",
                dtype_after=types[1] if changed else "",
                source=largest.source,
            )
        )
    return found


def _type(parts: Iterable[Part], mark: MarkName, others: Iterable[Part]) -> str:
    """Return the element type that most of one side is in, of those that the other side has less of."""
    theirs = {part.dtype: part.nbytes[mark] for part in others}
    most = max(parts, key=lambda p: p.nbytes[mark] - theirs.get(p.dtype, 0), default=None)
    return most.dtype if most else ""
