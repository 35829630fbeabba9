"""The gate's result: for the terminal, as a comment in Markdown, as JUnit XML and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from pydantic_core import to_jsonable_python

from ftbench.base.errors import EXIT_BAD_INPUT, EXIT_FINDING
from ftbench.base.units import counted
from ftbench.gating.result import (
    BlocksChange,
    BytesChange,
    Change,
    FitChange,
    GateResult,
    LargestBatchChange,
    MeasuredPeakChange,
    OutOfMemory,
    ScoreChange,
    SlopeChange,
    TimeChange,
)
from ftbench.report.commands.gate_attribution import attribution_words
from ftbench.report.commands.gate_sentences import (
    cell_words,
    change_words,
    reason_words,
    setting_changes_words,
    settings_words,
    versions_words,
)
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.render.markdown import escaped, table_text

if TYPE_CHECKING:
    from ftbench.report.document import Document

MOST_ROWS = 40  # lines of a comment's table: GitHub cuts a comment at 65,536 characters
# What the JSON calls each type of change.
_TYPES: dict[type, str] = {
    BytesChange: "bytes",
    BlocksChange: "live tensors",
    FitChange: "fit",
    SlopeChange: "slope",
    LargestBatchChange: "largest batch",
    MeasuredPeakChange: "measured peak",
    OutOfMemory: "out of memory",
    ScoreChange: "score",
    TimeChange: "time",
}


def headline(result: GateResult) -> str:
    """Return the verdict in a sentence."""
    cells = counted(len(result.judged), "cell")
    if result.exit_code == EXIT_FINDING:
        verdicts = [change.verdict for change in result.failures]
        parts = [
            counted(verdicts.count(verdict), verdict)
            for verdict in ("regression", "improvement")
            if verdict in verdicts
        ]
        return f"The gate fails: {' and '.join(parts)} ({cells} compared with the baseline)."
    if result.exit_code == EXIT_BAD_INPUT:
        return f"The gate cannot judge: {counted(len(result.unjudged), 'reason')} below."
    match = "matches" if len(result.judged) == 1 else "match"
    explained = ""
    if result.changes:
        is_are = "is" if len(result.changes) == 1 else "are"
        explained = f"; {counted(len(result.changes), 'other change')} {is_are} explained below"
    return f"The gate holds: {cells} {match} the baseline{explained}."


def notes(result: GateResult) -> Iterator[str]:
    """Yield what must be known beside the changes: what was not judged, and what accepts them."""
    yield from map(reason_words, result.unjudged)
    yield from map(reason_words, result.notes)
    if result.versions and result.judged:
        yield f"compared across versions: {versions_words(result.versions)}"
    if result.settings and not result.failures:
        yield f"compared across settings: {setting_changes_words(result.settings)}"
    verdicts = {change.verdict for change in result.failures}
    if "improvement" in verdicts:
        yield (
            "an improvement fails until it is accepted: else a later regression back to the old figure would"
            " pass"
        )
    yield from _accept_words(result)
    if any(change.verdict == "explained" for change in result.changes):
        yield (
            "explained: allocated and reserved bytes also depend on the order of definitions; they fail only"
            " together with requested bytes, or with what fits"
        )


def _accept_words(result: GateResult) -> Iterator[str]:
    """Yield the command that accepts what fails; nothing if nothing does, or nothing accepts it."""
    if result.failures and result.accept:
        yield f"if the change is intended, accept it with `{shlex.join(result.accept)}`"


def changes_table(changes: Sequence[Change]) -> Table:
    """Return one row per figure that changed."""
    shown = [(settings_words(change.settings), change_words(change), change) for change in changes]
    groups = any(group for group, _, _ in shown)
    noted = any(words.note for _, words, _ in shown)
    rows = [
        (
            *((group or ABSENT,) if groups else ()),
            *words[:-1],
            change.verdict,
            *((words.note,) if noted else ()),
        )
        for group, words, change in shown
    ]
    columns = {
        "group": groups,
        "cell": True,
        "figure": True,
        "baseline": True,
        "now": True,
        "difference": True,
        "verdict": True,
        "note": noted,
    }
    kept = tuple(name for name, there in columns.items() if there)
    return Table(
        title="What changed (memory in bytes)",
        columns=kept,
        rows=tuple(rows),
        numeric=tuple(name in ("baseline", "now", "difference") for name in kept),
    )


def cause_words(result: GateResult) -> Iterator[str]:
    """Yield which settings and packages changed together with the figures; nothing if nothing fails."""
    if not result.failures:
        return
    several = len(result.settings) + len(result.versions) > 1
    if result.settings:
        yield f"the change came with the setting {setting_changes_words(result.settings)}"
    if result.versions:
        yield f"the change came with {versions_words(result.versions)}"
    if several:
        yield "several things changed: update one at a time to know which it is"


def lines(result: GateResult) -> Iterator[str]:
    """Yield all that is said below the table of changes."""
    yield from cause_words(result)
    yield from notes(result)
    for one in result.attributions:
        yield from attribution_words(one)


def gate_markdown(result: GateResult) -> str:
    """Return the result as the body of a comment on a change: bounded, and the same for the same result."""
    parts = [f"### ftbench: memory of `{escaped(result.profile)}`", escaped(headline(result))]
    shown = sorted(result.changes, key=lambda change: change.verdict == "explained")
    if shown:
        parts.append(table_text(changes_table(shown[:MOST_ROWS])))
    if len(shown) > MOST_ROWS:
        parts.append(f"{len(shown) - MOST_ROWS} more figures changed.")
    said = list(lines(result))
    if said:
        shown_lines = [escaped(text.strip()).replace("*", "\\*") for text in said[:MOST_ROWS]]
        if len(said) > MOST_ROWS:
            shown_lines.append(f"{len(said) - MOST_ROWS} more lines are left out")
        parts.append("\n".join(f"- {text}" for text in shown_lines))
    return "\n\n".join(parts) + "\n"


def gate_document(result: GateResult) -> Document:
    """Return the result as a report, for a page that is kept with a run of CI."""
    import pandas as pd  # a page needs what a verdict does not

    from ftbench.report.document import Document
    from ftbench.report.elements.section import Section

    empty = pd.DataFrame()
    tables = (changes_table(result.changes),) if result.changes else ()
    sections = (
        Section("Verdict", (headline(result), *(text.strip() for text in lines(result)))),
        Section("What changed", tables=tables),
    )
    return Document(
        title=f"ftbench: memory of {result.profile}",
        sections=tuple(section for section in sections if section.paragraphs or section.tables),
        cells=empty,
        ledger=empty,
        stem="gate",
        stats=(
            ("cells judged", str(len(result.judged)), ""),
            ("figures that changed", str(len(result.changes)), f"{len(result.failures)} fail"),
            ("not judged", str(len(result.unjudged)), ""),
        ),
    )


def gate_json(result: GateResult) -> dict[str, Any]:
    """Return the result as JSON data."""
    data: dict[str, Any] = to_jsonable_python(
        {
            "profile": result.profile,
            "exit_code": result.exit_code,
            "verdict": headline(result),
            "judged": len(result.judged),
            "changes": [],
            "attributions": result.attributions,
            "unjudged": list(map(reason_words, result.unjudged)),
            "versions": result.versions,
            "settings": result.settings,
            "notes": list(map(reason_words, result.notes)),
            "accept": shlex.join(result.accept) or None,
        }
    )
    for change in result.changes:
        data["changes"].append({"type": _TYPES[type(change)], **to_jsonable_python(change)})
    return data


def gate_junit(result: GateResult) -> str:
    """Return the result as JUnit XML: one test case per cell, and one for each reason not to judge."""
    suite = ElementTree.Element("testsuite", name=f"ftbench gate {_text(result.profile)}")
    failures: dict[tuple[str, str], list[str]] = {
        (settings_words(place.settings), cell_words(place.cell)): [] for place in result.judged
    }
    for change in result.failures:  # slopes and largest batches have cases of their own
        words = change_words(change)
        delta = "" if words.difference == ABSENT else f" ({words.difference})"
        failures.setdefault((settings_words(change.settings), words.where), []).append(
            f"{words.figure}: {words.before} -> {words.after}{delta}"
        )
    for (group, where), said in failures.items():
        case = _case(suite, result.profile, group, where)
        if said:
            found = (one for one in result.attributions if settings_words(one.settings) == group)
            causes = (line for one in found for line in attribution_words(one))
            detail = [*said, *causes, *_accept_words(result)]
            failure = ElementTree.SubElement(case, "failure", message=_text(said[0]))
            failure.text = _text("\n".join(detail))
    for reason in map(reason_words, result.unjudged):
        case = _case(suite, result.profile, "", "not judged")
        ElementTree.SubElement(case, "error", message=_text(reason)).text = _text(reason)
    counts = {
        "tests": len(suite),
        "failures": sum(map(bool, failures.values())),
        "errors": len(result.unjudged),
    }
    suite.attrib.update({name: str(count) for name, count in counts.items()})
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, profile: str, group: str, cell: str) -> ElementTree.Element:
    classname = f"ftbench.{profile}{f' [{group}]' if group else ''}"
    return ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(cell))


def _text(text: str) -> str:
    """Return a text without what XML cannot hold."""
    return "".join(c for c in text if c in "\t\n\r" or ord(c) >= 32)
