"""Predictions as tables and as a chart of memory over the steps, in text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ftbench.base.units import ByteUnit, byte_unit, format_bytes
from ftbench.plan.grid import Grid, axis_order
from ftbench.plan.programs import NUM_PROCESSES, AnyGrid, ProgramCell, ProgramGrid
from ftbench.plan.settings import SHAPE, setting
from ftbench.records.prediction import (
    CardPrediction,
    CellPrediction,
    Composition,
    LargestBatch,
    LargestValue,
    PredictedBytes,
    Predictions,
)
from ftbench.report.commands.growth import growth_lines, growth_words
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word

VERDICT_WORDS = {"fits": "fits", "does not fit": "no", "too close to call": "close"}
_BARS = " ▁▂▃▄▅▆▇█"
CHART_HEIGHT = 8
CHART_WIDTH = 100

LEGEND = (
    "tensors: what tensors ask for, exact; per card: peak reserved, simulated, with its interval over"
    " what is not known; fits, no, or close (too close to call)"
)


def notes_lines(predictions: Predictions) -> tuple[str, ...]:
    """Return the cards that some cells are not predicted on, all notes, and the versions that figures are for."""
    refused = dict.fromkeys(f"not predicted {one.text}" for one in predictions.refused_cards)
    versions = ", ".join(f"{name} {version}" for name, version in predictions.versions)
    return (*refused, *predictions.notes, f"for {versions}")


def unit_of(figures: Iterable[PredictedBytes]) -> ByteUnit:
    """Return the unit that a column of figures is told in."""
    return byte_unit(end for one in figures for end in (one.value_bytes, one.high_bytes))


def figure_text(figure: PredictedBytes, unit: ByteUnit | None = None) -> str:
    """Return a figure as text, with its interval if there is one: in one unit, that of its column if given."""
    if figure.low_bytes == figure.high_bytes:
        return format_bytes(figure.value_bytes, unit)
    unit = unit or unit_of([figure])
    low, high = format_bytes(figure.low_bytes, unit), format_bytes(figure.high_bytes, unit)
    value = format_bytes(figure.value_bytes, unit)
    return value if low == high == value else f"{value} ({low} to {high})"


def predictions_table(grid: AnyGrid, predictions: Predictions, gpus: Sequence[str]) -> Table:
    """Return the axes of each cell, the exact peak of its tensors, and the peak on each card.

    Cells that differ only in training examples, which move no byte, are one row.
    """
    axes = grid.axis_names
    refused = {one.cell_id: one.reason for one in predictions.refused}
    unit = unit_of(one.tensors for one in predictions.cells)
    several = int(any(one.smallest_rank_bytes is not None for one in predictions.cells))
    card_units = {
        gpu: unit_of(c.reserved for one in predictions.cells for c in one.cards if c.gpu == gpu)
        for gpu in gpus
    }
    rows = []
    for cell in grid.cells:
        own = tuple(str(cell.value(axis)) for axis in axes)
        found = predictions.of(cell.cell_id)
        if found is None:
            why, _, _ = refused.get(cell.cell_id, "").partition("\n")
            rows.append((*own, f"not predicted: {why}", *[ABSENT] * (several + len(gpus))))
            continue
        by_gpu = {card.gpu: card for card in found.cards}
        cards = (
            _card_text(by_gpu[gpu], card_units[gpu]) if gpu in by_gpu else ABSENT for gpu in gpus
        )
        smallest = [_smallest_text(found, unit)] * several
        rows.append((*own, figure_text(found.tensors, unit), *smallest, *cards))
    every = Table(
        title="Predicted peak GPU memory" + " of a rank" * several,
        columns=(*_axis_words(grid), "tensors", *["smallest rank"] * several, *gpus),
        rows=tuple(rows),
        numeric=tuple(True for _ in range(len(axes) + 1 + several + len(gpus))),
    )
    return every.merged(axis_word("train_size")) if isinstance(grid, Grid) else every


def _smallest_text(found: CellPrediction, unit: ByteUnit) -> str:
    smallest = found.smallest_rank_bytes
    return ABSENT if smallest is None else format_bytes(smallest, unit)


def _axis_words(grid: AnyGrid) -> tuple[str, ...]:
    """Return the titles of the axes' columns: a program's arguments have their own names."""
    if isinstance(grid, ProgramGrid):
        return tuple("GPUs" if name == NUM_PROCESSES else name for name in grid.axis_names)
    return tuple(map(axis_word, grid.axis_names))


def _card_text(card: CardPrediction, unit: ByteUnit) -> str:
    return f"{figure_text(card.reserved, unit)} {VERDICT_WORDS[card.verdict]}"


def largest_table(grid: Grid, predictions: Predictions, gpus: Sequence[str]) -> Table:
    """Return the largest batch that fits: one row per length (and other setting that changes memory)."""
    others = [
        name
        for name in axis_order(axis.name for axis in grid.axes)
        if name not in SHAPE and "memory" in setting(name).moves
    ]
    cells = {cell.cell_id: cell for cell in grid.cells}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in predictions.largest:
        cell = cells[one.cell_id]
        key = (str(one.max_length), *(str(cell.value(name)) for name in others))
        text = _largest_text(one)
        if (processes := cell.num_processes) > 1:
            text += f", {one.certain * processes} on {processes} GPUs"
        rows.setdefault(key, {})[one.gpu] = text
    return Table(
        title="Largest batch that fits",
        columns=("length", *map(axis_word, others), *gpus),
        rows=tuple(
            (*key, *(found.get(gpu, ABSENT) for gpu in gpus)) for key, found in rows.items()
        ),
        numeric=tuple(True for _ in range(1 + len(others) + len(gpus))),
    )


def largest_values_table(grid: ProgramGrid, predictions: Predictions, gpus: Sequence[str]) -> Table:
    """Return the largest value of an argument that fits: one row per combination of the other arguments."""
    argument = predictions.largest_values[0].argument
    others = [name for name in grid.axis_names if name != argument]
    cells = {cell.cell_id: cell for cell in grid.cells}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for one in predictions.largest_values:
        key = tuple(str(cells[one.cell_id].value(name)) for name in others)
        rows.setdefault(key, {})[one.gpu] = _largest_text(one)
    return Table(
        title=f"Largest {argument} that fits",
        columns=(*others, *gpus),
        rows=tuple(
            (*key, *(found.get(gpu, ABSENT) for gpu in gpus)) for key, found in rows.items()
        ),
        numeric=tuple(True for _ in range(len(others) + len(gpus))),
    )


def _largest_text(one: LargestBatch | LargestValue) -> str:
    return f"{one.certain}" + (f" (perhaps {one.possible})" if one.possible != one.certain else "")


def explanation_tables(prediction: CellPrediction) -> list[Table]:
    """Return the figures of one cell, and the parts of its peak."""
    composition = prediction.composition
    assert composition is not None
    parts = (
        ("What the peak consists of", "what", composition.roles),
        ("By module that made it", "module", composition.modules),
        ("By operator that made it", "operator", composition.operators),
        ("By line of code that made it", "line", composition.lines),
    )
    total = prediction.tensors.value_bytes
    tables = [_figures_table(prediction)]
    for title, word, shares in parts:
        if not shares:
            continue
        unit = byte_unit(share.nbytes for share in shares)
        rows = tuple(
            (share.name, format_bytes(share.nbytes, unit), f"{share.nbytes / total:.1%}")
            for share in shares
        )
        tables.append(Table(title, (word, "bytes", "share"), rows, (False, True, True)))
    return tables


def _figures_table(prediction: CellPrediction) -> Table:
    rows = [("tensors", ABSENT, *_figure_row(prediction.tensors))]
    for card in prediction.cards:
        for name in ("requested", "allocated", "reserved", "process"):
            rows.append((name, card.gpu, *_figure_row(getattr(card, name))))
    return Table(
        title="Predicted peaks",
        columns=("figure", "card", "bytes", "low", "high", "certainty"),
        rows=tuple(rows),
        numeric=(False, False, True, True, True, False),
    )


def _figure_row(figure: PredictedBytes) -> tuple[str, ...]:
    sizes = (figure.value_bytes, figure.low_bytes, figure.high_bytes)
    return (*(f"{size:,}" for size in sizes), figure.certainty)


def moment_text(composition: Composition) -> str:
    """Return when the peak is reached, as a sentence."""
    moment = composition.moment
    module = f" of {moment.module}" if moment.module else ""
    return f"The peak is reached in the {moment.phase} phase of step {moment.step}, by {moment.operator}{module}."


def timeline_chart(composition: Composition, width: int = CHART_WIDTH) -> list[str]:
    """Return live tensor memory over the traced events as lines of text, with phases below."""
    points = composition.timeline
    if not points:
        return []
    width = min(width, len(points))
    heights = [
        max(
            nbytes
            for _, nbytes in points[len(points) * i // width : len(points) * (i + 1) // width]
        )
        for i in range(width)
    ]
    top = max(heights)
    label = max(len(format_bytes(top)), len("0 B"))
    lines = []
    for row in range(CHART_HEIGHT, 0, -1):
        bars = "".join(_bar(height / top * CHART_HEIGHT - (row - 1)) for height in heights)
        name = format_bytes(top) if row == CHART_HEIGHT else "0 B" if row == 1 else ""
        lines.append(f"{name:>{label}} │{bars}")
    return [*lines, f"{'':>{label}}  {_phase_line(composition, width)}"]


def _bar(filled: float) -> str:
    return _BARS[max(0, min(8, round(filled * 8)))]


def _phase_line(composition: Composition, width: int) -> str:
    """Return the names of the steps' phases, each at its beginning, as far as there is room."""
    last = composition.timeline[-1][0] or 1
    line = [" "] * width
    free_from = 0
    for event, name in composition.phases:
        if name == "setup":  # short, and in the way of the first step's name
            continue
        place = min(width - 1, event * width // (last + 1))
        if place >= free_from and place + len(name) <= width:
            line[place : place + len(name)] = name
            free_from = place + len(name) + 1
    return "".join(line).rstrip()


def growth_notes(grid: AnyGrid, predictions: Predictions) -> Iterator[str]:
    """Yield a line for each cell whose steps keep ever more memory."""
    axes = grid.axis_names
    cells = {cell.cell_id: cell for cell in grid.cells}
    for one in predictions.cells:
        if one.growth is not None:
            own = cells[one.cell_id]
            where = ", ".join(f"{name} {own.value(name)}" for name in axes)
            yield f"{where}: {growth_words(one.growth)}" if where else growth_words(one.growth)


def growth_explained(prediction: CellPrediction) -> Iterator[str]:
    """Yield what the steps of a cell keep ever more of; nothing if they do not."""
    if prediction.growth is not None:
        yield ""
        yield growth_words(prediction.growth)
        yield from growth_lines(prediction.growth)


def predictions_json(grid: AnyGrid, predictions: Predictions, subject: str) -> dict[str, Any]:
    """Return predictions as JSON data: each with its cell's axes, or its program's arguments."""
    cells = {cell.cell_id: cell for cell in grid.cells}

    def point(cell_id: str) -> dict[str, Any]:
        cell = cells[cell_id]
        if isinstance(cell, ProgramCell):
            processes = {NUM_PROCESSES: cell.num_processes} if cell.num_processes else {}
            return {"arguments": dict(cell.values), **processes}
        return {axis: cell.value(axis) for axis in grid.axis_names}

    return {
        "program" if isinstance(grid, ProgramGrid) else "profile": subject,
        "refused_cards": [one.model_dump() for one in predictions.refused_cards],
        "versions": dict(predictions.versions),
        "notes": list(predictions.notes),
        "cells": [
            point(one.cell_id) | one.model_dump(mode="json", exclude={"allocations"})
            for one in predictions.cells
        ],
        "refused": [one.model_dump(mode="json") for one in predictions.refused],
        "largest_values": [one.model_dump(mode="json") for one in predictions.largest_values],
        "largest_batch": [one.model_dump(mode="json") for one in predictions.largest],
    }
