"""Plan: the cells of a profile as a table, before anything runs."""

from __future__ import annotations

from typing import Any

from ftbench.base.units import ByteUnit, counted
from ftbench.plan.cell import Cell
from ftbench.plan.grid import Grid, axis_order
from ftbench.plan.profile import Profile
from ftbench.records.prediction import Predictions
from ftbench.report.commands.prediction import figure_text, unit_of
from ftbench.report.commands.token_lengths import lengths_json, lengths_table
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word


def plan_table(
    profile: Profile, grid: Grid, *, resolved: bool, predicted: Predictions | None = None
) -> Table:
    """Return the cells, with the predicted peak of their tensors on a GPU if there is one.

    Cells that differ only in training examples, which move no byte, are one row.
    """
    axes = axis_order(axis.name for axis in grid.axes)
    unit = unit_of(one.tensors for one in predicted.cells) if predicted else None
    rows = [
        (
            *([cell.cell_id] if resolved else []),
            *(str(cell.value(axis)) for axis in axes),
            *([_peak(cell, predicted, unit)] if predicted else []),
        )
        for cell in grid.cells
    ]
    counts = (("replicates", profile.run.replicates), ("repeats", profile.run.repeats))
    runs = "".join(f", {count} {word} each" for word, count in counts if count > 1)
    every = Table(
        title=f"{profile.name}: {counted(len(rows), 'cell')}{runs}",
        columns=(
            *(["cell"] if resolved else []),
            *map(axis_word, axes),
            *(["predicted GPU peak (tensors)"] if predicted else []),
        ),
        rows=tuple(rows),
        numeric=(
            *([False] if resolved else []),
            *(True for _ in axes),
            *([True] if predicted else []),
        ),
    )
    return every.merged(axis_word("train_size"), counted="cell")


def texts_table(grid: Grid, predicted: Predictions) -> Table | None:
    """Return what each length makes of the training texts that were read; None if none were."""
    if not predicted.by_length:
        return None
    padding = {cell.padding for cell in grid.cells if cell.packing == "none"}
    to = "" if padding == {"max_length"} else ", if each is filled up to the length"
    return lengths_table(f"Training texts at each length{to}", predicted.by_length)


def _peak(cell: Cell, predicted: Predictions, unit: ByteUnit | None) -> str:
    found = predicted.of(cell.cell_id)
    return figure_text(found.tensors, unit) if found else ABSENT


def plan_json(
    profile: Profile, grid: Grid, *, resolved: bool, predicted: Predictions | None = None
) -> dict[str, Any]:
    """Return the plan as JSON data."""
    axes = axis_order(axis.name for axis in grid.axes)
    return {
        "profile": profile.name,
        "replicates": profile.run.replicates,
        "repeats": profile.run.repeats,
        "axes": {axis.name: list(axis.values) for axis in grid.axes},
        "cells": [
            {
                "cell_id": cell.cell_id if resolved else None,
                **{axis: cell.value(axis) for axis in axes},
                **({"predicted": _peak_json(cell, predicted)} if predicted else {}),
            }
            for cell in grid.cells
        ],
        **({"lengths": lengths_json(predicted.by_length)} if predicted else {}),
    }


def _peak_json(cell: Cell, predicted: Predictions) -> dict[str, Any] | None:
    found = predicted.of(cell.cell_id)
    return found.tensors.model_dump(mode="json") if found else None
