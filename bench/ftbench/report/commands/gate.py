"""The gate's result: for the terminal, as a comment in Markdown, as JUnit XML and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from ftbench.base.errors import EXIT_BAD_INPUT, EXIT_FINDING
from ftbench.base.units import format_bytes, format_ratio, format_seconds
from ftbench.gate.attribution import ChangedPart
from ftbench.gate.compare import Attribution, Change, GateResult
from ftbench.report.document import Document
from ftbench.report.elements.section import Section
from ftbench.report.elements.tables import ABSENT, FIGURE_WORDS, Table
from ftbench.report.elements.words import counted
from ftbench.report.render.markdown import escaped, table_text

MOST_CHANGED_PARTS = 8  # lines of an attribution; the rest are one
MOST_ROWS = 40  # lines of a comment's table: GitHub cuts a comment at 65,536 characters
_DTYPES = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}
_KINDS = {
    "requested": "requested bytes",
    "allocated": "allocated",
    "reserved": "reserved",
    "slope": "",
    "largest batch": "largest batch",
    "fits": "fits",
    "measured peak": "",
    "time": "",
    "accuracy": "accuracy",
}
_WORDS = FIGURE_WORDS | {"step_min_s": "step (fastest)"}
_NO_BYTES = ("largest batch", "fits", "accuracy", "time")


def headline(result: GateResult) -> str:
    """Return the verdict in a sentence."""
    cells = counted(len(result.judged), "cell")
    if result.exit_code == EXIT_FINDING:
        kinds = [change.verdict for change in result.failures]
        parts = [
            f"{counted(kinds.count(verdict), 'figure')} {word}"
            for verdict, word in (("regression", "grew or got worse"), ("drop", "dropped"))
            if verdict in kinds
        ]
        return f"The gate fails: of {cells} {' and '.join(parts)}."
    if result.exit_code == EXIT_BAD_INPUT:
        return f"The gate cannot judge: {counted(len(result.unjudged), 'reason')} below."
    told = f", {counted(len(result.changes), 'figure')} moved that may" if result.changes else ""
    need = "needs" if len(result.judged) == 1 else "need"
    return f"The gate holds: {cells} {need} what the baseline says{told}."


ACCEPT = "`ftbench baseline update`"


def notes(result: GateResult, accept: str = ACCEPT) -> Iterator[str]:
    """Yield what is to be known beside the changes: what was not judged, and what accepts them."""
    yield from result.unjudged
    yield from result.notes
    moved = ", ".join(f"{one.package} {one.before} -> {one.after}" for one in result.versions)
    if moved and result.judged:
        yield f"compared across versions: {moved}"
    kinds = {change.verdict for change in result.failures}
    if "drop" in kinds:
        yield "a drop fails until it is accepted: it would hide the next rise"
    if kinds:
        yield f"where this is meant, {accept} accepts it"
    if any(change.verdict == "explained" for change in result.changes):
        yield (
            "explained: allocated and reserved bytes depend on the order of definitions too; they fail only"
            " where requested bytes or what fits moved"
        )


def changes_table(changes: Sequence[Change]) -> Table:
    """Return one row a figure that moved; bytes where nothing else is said."""
    groups = any(change.group for change in changes)
    noted = any(change.note for change in changes)
    rows = [
        (
            *((change.group or ABSENT,) if groups else ()),
            change.where,
            _kind_words(change),
            *_figures(change),
            _verdict_word(change),
            *((change.note,) if noted else ()),
        )
        for change in changes
    ]
    heads = ("group",) if groups else ()
    tail = ("note",) if noted else ()
    return Table(
        title="What moved (bytes)",
        columns=(*heads, "cell", "figure", "baseline", "now", "difference", "verdict", *tail),
        rows=tuple(rows),
        numeric=(
            *(False for _ in heads),
            False,
            False,
            True,
            True,
            True,
            False,
            *(False for _ in tail),
        ),
    )


def _verdict_word(change: Change) -> str:
    words = ("worse", "better") if change.kind in _NO_BYTES else ("more", "less")
    found = dict(zip(("regression", "drop"), words, strict=True))
    return found.get(change.verdict, change.verdict)


def _kind_words(change: Change) -> str:
    if change.kind == "requested" and not change.of:
        return "tensors"
    return " ".join(filter(None, (_WORDS.get(change.of, change.of), _KINDS[change.kind]))) or (
        "slope"
    )


def _figures(change: Change) -> tuple[str, str, str]:
    if isinstance(change.before, str) or isinstance(change.after, str):
        return str(change.before), str(change.after), ABSENT
    delta = change.after - change.before
    if change.kind == "largest batch":
        return f"{change.before:,}", f"{change.after:,}", f"{delta:+,}"
    if change.kind == "time":
        ratio = format_ratio(change.after / change.before)
        return format_seconds(change.before), format_seconds(change.after), ratio
    if change.kind == "accuracy":
        return f"{change.before:.3f}", f"{change.after:.3f}", f"{delta:+.3f}"
    if change.kind == "slope":
        return f"{change.before:,.10g}", f"{change.after:,.10g}", f"{delta:+,.10g}"
    return f"{change.before:,.0f}", f"{change.after:,.0f}", signed(int(delta))


def signed(delta: int) -> str:
    """Return a difference of bytes: `+12.6 MiB`, `-512 B`."""
    return f"{'-' if delta < 0 else '+'}{format_bytes(abs(delta))}"


def attribution_words(one: Attribution) -> Iterator[str]:
    """Yield what moved in a group, the heading first."""
    whose = f"{one.group}: " if one.group else ""
    if not one.changed_parts:
        yield (
            f"{whose}no tensor of {one.reference} moved: it is a kernel's workspace, or the order of what"
            " is asked for"
        )
        return
    yield f"{whose}what moved at {one.reference}, whose peak is another by {signed(one.delta_bytes)}:"
    for part in one.changed_parts[:MOST_CHANGED_PARTS]:
        yield f"  {changed_part_words(part)}"
    rest = one.changed_parts[MOST_CHANGED_PARTS:]
    if rest:
        total = signed(sum(part.delta_bytes for part in rest))
        yield f"  {total} in {counted(len(rest), 'more part')}"


def changed_part_words(one: ChangedPart) -> str:
    """Return a part that moved: how much, as what, of which module and operator, from which line."""
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


_AT = {
    "before a step": ", kept from one step to the next",
    "in evaluation": ", in evaluation",
    "most": ", the most that it ever is",
}


def package_words(result: GateResult) -> str:
    """Return which of the packages that moved the change is of; empty where none moved."""
    if not result.versions or not result.failures:
        return ""
    named = ", ".join(f"{one.package} {one.before} -> {one.after}" for one in result.versions)
    several = ": one at a time would tell which" if len(result.versions) > 1 else ""
    return f"the change came with {named}{several}"


def lines(result: GateResult, accept: str = ACCEPT) -> Iterator[str]:
    """Yield all that is said below the table of changes; `accept` is what accepts them."""
    if words := package_words(result):
        yield words
    yield from notes(result, accept)
    for one in result.attributions:
        yield from attribution_words(one)


def gate_markdown(result: GateResult) -> str:
    """Return the result as the body of a comment on a change: bounded, and the same for the same result."""
    parts = [f"### ftbench: memory of `{escaped(result.profile)}`", escaped(headline(result))]
    shown = sorted(result.changes, key=lambda change: change.verdict == "explained")
    if shown:
        parts.append(table_text(changes_table(shown[:MOST_ROWS])))
    if len(shown) > MOST_ROWS:
        parts.append(f"{len(shown) - MOST_ROWS} more figures moved.")
    said = list(lines(result))
    if said:
        shown_lines = [escaped(text.strip()).replace("*", "\\*") for text in said[:MOST_ROWS]]
        if len(said) > MOST_ROWS:
            shown_lines.append(f"{len(said) - MOST_ROWS} more lines are left out")
        parts.append("\n".join(f"- {text}" for text in shown_lines))
    return "\n\n".join(parts) + "\n"


def gate_document(result: GateResult) -> Document:
    """Return the result as a report, for a page that is kept with a run of CI."""
    empty = pd.DataFrame()
    tables = (changes_table(result.changes),) if result.changes else ()
    sections = (
        Section("Verdict", (headline(result), *(text.strip() for text in lines(result)))),
        Section("What moved", tables=tables),
    )
    return Document(
        title=f"ftbench: memory of {result.profile}",
        sections=tuple(section for section in sections if section.paragraphs or section.tables),
        cells=empty,
        ledger=empty,
        stem="gate",
        stats=(
            ("cells judged", str(len(result.judged)), ""),
            ("figures that moved", str(len(result.changes)), f"{len(result.failures)} fail"),
            ("not judged", str(len(result.unjudged)), ""),
        ),
    )


def gate_json(result: GateResult) -> dict[str, Any]:
    """Return the result as JSON data."""
    return {
        "profile": result.profile,
        "exit_code": result.exit_code,
        "verdict": headline(result),
        "judged": len(result.judged),
        "changes": [dataclasses.asdict(change) for change in result.changes],
        "attributions": [dataclasses.asdict(one) for one in result.attributions],
        "unjudged": list(result.unjudged),
        "versions": [dataclasses.asdict(one) for one in result.versions],
        "notes": list(result.notes),
    }


def gate_junit(result: GateResult) -> str:
    """Return the result as JUnit XML: a test case a cell, and one for what could not be judged."""
    suite = ElementTree.Element("testsuite", name=f"ftbench gate {_text(result.profile)}")
    cases = list(result.judged)
    for change in result.failures:  # of slopes and batches: of no cell
        if (change.group, change.where) not in cases:
            cases.append((change.group, change.where))
    failed = 0
    for group, cell in cases:
        case = _case(suite, result.profile, group, cell)
        own = [c for c in result.failures if (c.group, c.where) == (group, cell)]
        if own:
            failed += 1
            said = [_change_words(change) for change in own]
            found = (one for one in result.attributions if one.group == group)
            detail = [*said, *(line for one in found for line in attribution_words(one))]
            failure = ElementTree.SubElement(case, "failure", message=_text(said[0]))
            failure.text = _text("\n".join(detail))
    for reason in result.unjudged:
        case = _case(suite, result.profile, "", "not judged")
        ElementTree.SubElement(case, "error", message=_text(reason)).text = _text(reason)
    counts = {"tests": len(suite), "failures": failed, "errors": len(result.unjudged)}
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, profile: str, group: str, cell: str) -> ElementTree.Element:
    classname = f"ftbench.{profile}{f' [{group}]' if group else ''}"
    return ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(cell))


def _change_words(change: Change) -> str:
    before, after, delta = _figures(change)
    return f"{_kind_words(change)}: {before} -> {after}{'' if delta == ABSENT else f' ({delta})'}"


def _text(text: str) -> str:
    """Return a text without what XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or ord(c) >= 32)
