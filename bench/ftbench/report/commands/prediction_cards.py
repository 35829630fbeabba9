"""Predictions for many cards: one row per card, where one column per card would not fit on a page."""

from __future__ import annotations

from collections.abc import Sequence

from ftbench.base.units import format_bytes
from ftbench.plan.gpus import Gpu
from ftbench.plan.grid import Grid
from ftbench.plan.programs import ProgramGrid
from ftbench.records.prediction import Predictions
from ftbench.report.commands.prediction import VERDICT_WORDS
from ftbench.report.elements.table import ABSENT, Table

# More cards than this are rows, not columns.
MOST_COLUMNS = 4


def many_cards_table(
    grid: Grid | ProgramGrid, predictions: Predictions, gpus: Sequence[Gpu]
) -> Table:
    """Return one row per card: its memory, the cells that fit, and the range of the largest batches.

    The largest batch differs with the length and other settings: its column has the range over them.
    """
    total = len(grid.cells)
    return Table(
        title="Cards",
        columns=("card", "memory", *(VERDICT_WORDS[name] for name in VERDICT_WORDS), "largest batch"),
        rows=tuple(
            (
                gpu.name,
                format_bytes(gpu.memory_bytes),
                *(_share(_count(predictions, gpu, verdict), total) for verdict in VERDICT_WORDS),
                _largest(predictions, gpu),
            )
            for gpu in gpus
        ),
        numeric=(False, True, *(True for _ in VERDICT_WORDS), True),
    )  # fmt: skip


def _count(predictions: Predictions, gpu: Gpu, verdict: str) -> int:
    cards = (card for cell in predictions.cells for card in cell.cards if card.gpu == gpu.name)
    return sum(card.verdict == verdict for card in cards)


def _share(count: int, total: int) -> str:
    return f"{count} of {total}" if count else ABSENT


def _largest(predictions: Predictions, gpu: Gpu) -> str:
    """Return the range of the largest batches (or values of an argument) that certainly fit on a card."""
    batches = [one.certain for one in predictions.largest if one.gpu == gpu.name]
    values = [one.certain for one in predictions.largest_values if one.gpu == gpu.name]
    found = [*batches, *values]
    if not found:
        return ABSENT
    least, most = min(found), max(found)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
