"""The diagnosis of a machine as a table, as lines on what to mend, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ftbench.records.doctor import Finding, MachineFacts
from ftbench.report.commands.doctor_findings import nothing_runs
from ftbench.report.elements.table import Table


def doctor_table(findings: Sequence[Finding]) -> Table:
    """Return one row per finding."""
    return Table(
        title="What can be measured here",
        columns=("part", "state", "found", "what it means"),
        rows=tuple((one.name, one.state, one.found, one.meaning) for one in findings),
        numeric=(False,) * 4,
        optional=("what it means",),
    )


def mending_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield what each finding that is not fine means, and how to mend it; and a summary at the end."""
    for one in findings:
        if one.state != "fine":
            yield f"{one.name} ({one.state}): {one.meaning}."
            if one.mend:
                yield f"    {one.mend}"
    states = [one.state for one in findings]
    yield ", ".join(f"{states.count(name)} {name}" for name in ("fine", "limited", "missing"))


def doctor_json(facts: MachineFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings and the facts behind them as JSON data: bytes, processors, versions."""
    return {
        "can_run": not nothing_runs(facts),
        "findings": [one.model_dump(mode="json") for one in findings],
        "facts": facts.model_dump(mode="json"),
    }
