"""The page of a self-check: one line per row, the figures of each, and what to send of those that failed."""

from __future__ import annotations

from ftbench.base.units import counted, format_bytes, format_seconds
from ftbench.records.prediction import PredictedBytes
from ftbench.records.selfcheck import CheckedFigure, Selfcheck, SelfcheckRow
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.render.markdown import escaped, table_text

_AGREES = {True: "yes", False: "no", None: ABSENT}


def machine_lines(page: Selfcheck) -> list[str]:
    """Return the cards, the driver and the versions; and packages that are missing."""
    machine = page.machine
    cards = ", ".join(
        f"{card.name} ({format_bytes(card.total_memory_bytes)}, compute capability "
        f"{'.'.join(map(str, card.compute_capability))})"
        for card in machine.cards
    )
    there = [f"{name} {version}" for name, version in machine.versions.items() if version]
    lacking = [name for name, version in machine.versions.items() if version is None]
    lines = [
        f"{counted(len(machine.cards), 'card')}: {cards}",
        f"driver {machine.driver or 'unknown'}, CUDA {machine.cuda or 'unknown'}, "
        f"ftbench {page.ftbench}, {', '.join(there)}",
    ]
    return [*lines, f"missing: {', '.join(lacking)}"] if lacking else lines


def summary(page: Selfcheck) -> str:
    """Return how many rows are ok, failed and left out, and the time."""
    states = [row.answer.status for row in page.rows]
    parts = [f"{states.count(state)} {state}" for state in ("ok", "failed", "left out")]
    ended = "" if page.complete else "; not at its end yet"
    return f"{', '.join(parts)}, in {format_seconds(page.seconds)}{ended}"


def rows_table(page: Selfcheck) -> Table:
    """Return one row per check, with the reason of what failed or was left out."""
    return Table(
        title="Rows",
        columns=("row", "result", "what was checked", "time", "reason"),
        rows=tuple(
            (
                row.name,
                row.answer.status,
                row.about,
                format_seconds(row.seconds),
                row.answer.reason or ABSENT,
            )
            for row in page.rows
        ),
        numeric=(False, False, False, True, False),
        optional=("what was checked",),
    )


def figures_table(page: Selfcheck) -> Table:
    """Return all figures: measured, predicted with the interval, and whether both agree."""
    return Table(
        title="Figures",
        columns=("row", "figure", "measured", "predicted", "agrees"),
        rows=tuple(
            (row.name, one.name, _measured(one), _predicted(one.predicted), _AGREES[one.agrees])
            for row in page.rows
            for one in row.answer.figures
        ),
        numeric=(False, False, True, True, False),
    )


def _measured(figure: CheckedFigure) -> str:
    if figure.measured is None:
        return ABSENT
    if figure.unit == "byte":
        return f"{figure.measured:,.0f} B"
    if figure.unit == "s":
        return format_seconds(figure.measured)
    return f"{figure.measured:.4g}" if figure.unit == "ratio" else _count(figure.measured)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def _predicted(figure: PredictedBytes | None) -> str:
    """Return a predicted figure to the byte, or both ends of its interval."""
    if figure is None:
        return ABSENT
    if figure.low_bytes == figure.high_bytes:
        return f"{figure.value_bytes:,} B"
    return f"{figure.low_bytes:,} to {figure.high_bytes:,} B"


def row_line(row: SelfcheckRow) -> str:
    """Return one line for a row that has just ended."""
    reason = f": {row.answer.reason}" if row.answer.reason else ""
    return f"{row.answer.status:8} {row.name:16} {format_seconds(row.seconds):>8}{reason}"


def to_send(page: Selfcheck) -> list[str]:
    """Return what to send of each row that failed, as files beside the page."""
    return [f"{row.name}: {', '.join(row.answer.send) or 'the page'}" for row in page.failed]


def selfcheck_markdown(page: Selfcheck) -> str:
    """Return the page as Markdown."""
    parts = [
        "# Self-check",
        escaped(summary(page)),
        *map(escaped, machine_lines(page)),
        "## Rows",
        table_text(rows_table(page)),
        "## Figures",
        table_text(figures_table(page)),
    ]
    if notes := [f"- {row.name}: {note}" for row in page.rows for note in row.answer.notes]:
        parts += ["## Notes", "\n".join(map(escaped, notes))]
    if page.failed:
        parts += [
            "## What to send",
            "Open an issue with this page and the files named here, which are beside it. They have no data and "
            "no weights; logs name folders of this machine.",
            "\n".join(f"- {escaped(line)}" for line in to_send(page)),
        ]
    return "\n\n".join(parts) + "\n"
