"""The answer of a search for the cheapest configuration that fits: tables, lines of a profile, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftbench.base.units import format_bytes
from ftbench.plan.cell import Cell, plain_value
from ftbench.plan.grid import Grid
from ftbench.plan.variants import changes_in_toml
from ftbench.records.fit_search import FitAnswer, Judged
from ftbench.report.commands.prediction import VERDICT_WORDS, figure_text
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word

BATCH = "per_device_train_batch_size"
LEGEND = (
    "needs: peak reserved on a card without a limit, with its interval; room: what the card has for it beside"
    " CUDA's context and NCCL; missing: from the lower end of the room to the upper end of the need; close (too"
    " close to call) counts as not fitting"
)


def configuration_table(cell: Cell, answer: FitAnswer) -> Table:
    """Return the settings of the configuration that fits, those of the profile, and its figures."""
    found = answer.found
    assert found is not None
    rows = [
        (axis_word(name), _text(value), _text(cell.setting(name)), _remark(name, found))
        for name, value in (*found.values, (BATCH, found.cell.setting(BATCH)))
    ]
    total = found.cell.num_processes * found.cell.examples_per_step
    rows += [
        (
            "examples per step, all cards",
            str(total),
            _text(cell.num_processes * cell.examples_per_step),
            "",
        ),
        ("tensors", figure_text(found.tensors), "", ""),
        ("reserved", figure_text(found.card.reserved), "", f"room: {_room(found)}"),
        ("process", figure_text(found.card.process), "", "with CUDA's context and NCCL"),
    ]
    if answer.largest_possible and answer.largest_possible > int(found.cell.setting(BATCH)):
        rows.append(
            ("largest batch, perhaps", str(answer.largest_possible), "", "too close to call")
        )
    return Table(
        title=f"The cheapest configuration that fits on {found.card.gpu}",
        columns=("setting", "value", "profile", ""),
        rows=tuple(rows),
        numeric=(False, True, True, False),
    )


def _remark(name: str, found: Judged) -> str:
    return "changes what is learned" if name in found.departures else ""


def _text(value: Any) -> str:
    plain = plain_value(value)
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _room(judged: Judged) -> str:
    low, high = judged.card.capacity_low_bytes, judged.card.capacity_high_bytes
    return f"{format_bytes(low)} to {format_bytes(high)}" if low != high else format_bytes(low)


def profile_lines(grid: Grid, cell: Cell, answer: FitAnswer) -> list[str]:
    """Return the lines to change in the profile; none if it fits as it is."""
    assert answer.found is not None
    found = answer.found
    lines = changes_in_toml(grid, cell, found.cell, [name for name, _ in found.values])
    return ["# In the profile:", *lines] if lines else ["# It fits as the profile has it."]


def neighbours_table(answer: FitAnswer) -> Table:
    """Return one row per cheaper configuration: what differs, what it needs, and what is missing for it."""
    rows = []
    for neighbour in answer.neighbours:
        one = neighbour.judged
        if answer.found is None:
            what = ", ".join(f"{axis_word(k)} {_text(v)}" for k, v in _settings(one))
        else:
            what = f"{axis_word(neighbour.setting)} {_text(one.cell.setting(neighbour.setting))}"
        missing = format_bytes(one.missing_bytes) if one.missing_bytes else ABSENT
        verdict = VERDICT_WORDS[one.verdict]
        rows.append((what, figure_text(one.needs), _room(one), missing, verdict))
    title = "Cheaper by one setting" if answer.found else "Nothing fits; the nearest that was tried"
    return Table(
        title=title,
        columns=("configuration", "needs", "room", "missing", "verdict"),
        rows=tuple(rows),
        numeric=(False, True, True, True, False),
    )


def _settings(judged: Judged) -> tuple[tuple[str, Any], ...]:
    return (*judged.values, (BATCH, judged.cell.setting(BATCH)))


def fit_notes(answer: FitAnswer, contradicting: int) -> Iterator[str]:
    """Yield what was tried and what was not, and the notes of the predictions."""
    if answer.found is None:
        yield (
            "nothing fits: --gpus has more cards, and --over settings that need less, such as method=full,lora,"
            " optim=adamw_torch_fused,adamw_bnb_8bit or bf16=false,true"
        )
    yield LEGEND
    yield f"predicted: {answer.tried} of {answer.variants} configurations, in the order of their cost"
    if contradicting:
        yield f"left out: {contradicting} configurations whose settings cannot go together"
    for reason in dict.fromkeys(one.reason for one in answer.refused):
        yield f"not predicted: {' '.join(reason.split())}"
    yield from answer.notes
    yield f"for {', '.join(f'{name} {version}' for name, version in answer.versions)}"


def fit_json(
    grid: Grid, cell: Cell, answer: FitAnswer, subject: str, contradicting: int
) -> dict[str, Any]:
    """Return the answer as JSON data."""
    found = None
    if answer.found is not None:
        changes = changes_in_toml(
            grid, cell, answer.found.cell, [name for name, _ in answer.found.values]
        )
        found = _judged_json(answer.found) | {
            "changes": changes,
            "largest_possible_batch": answer.largest_possible,
        }
    return {
        "profile": subject,
        "found": found,
        "neighbours": [
            {"setting": one.setting or None} | _judged_json(one.judged) for one in answer.neighbours
        ],
        "tried": answer.tried,
        "configurations": answer.variants,
        "contradicting": contradicting,
        "refused": [one.model_dump(mode="json") for one in answer.refused],
        "notes": list(answer.notes),
        "versions": dict(answer.versions),
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    """Return a configuration as JSON data: its settings by name, and its figures."""
    figures = judged.model_dump(mode="json", exclude={"cell", "values"})
    return {"cell_id": judged.cell.cell_id, "settings": dict(_settings(judged)), **figures}
