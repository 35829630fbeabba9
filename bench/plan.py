"""Plan: the cells of a profile as a table, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.errors import HubUnreachable
from bench.grid import Cell, Grid, axis_order, expand
from bench.prediction import Predictions
from bench.profile import Profile
from bench.report.prediction import figure_text
from bench.report.tables import ABSENT, Table, axis_word
from bench.workload import DataSource, ModelSource, Source, resolve_data, resolve_model


def plan_grid(profile: Profile, selection: Mapping[str, Any]) -> tuple[Grid, HubUnreachable | None]:
    """Return the grid, and why its cells have no id where the hub could not be asked for a revision."""
    try:
        model, data = resolve_model(profile.workload), resolve_data(profile.workload)
    except HubUnreachable as error:
        return expand(profile, *_unresolved(profile)).only(selection), error
    return expand(profile, model, data).only(selection), None


def _unresolved(profile: Profile) -> tuple[ModelSource, DataSource]:
    """Return sources without a revision, good for counting cells only."""
    workload = profile.workload

    def source(reference: str) -> Source:
        return Source(reference=reference, kind="hub", location=reference, revision="unresolved")

    model = ModelSource(
        source=source(workload.model), tokenizer=source(workload.model), weights=workload.weights
    )
    fields = workload.model_dump(include=set(DataSource.model_fields) - {"where", "config"})
    return model, DataSource(source=source(workload.dataset), **fields)


def plan_table(
    profile: Profile, grid: Grid, *, resolved: bool, predicted: Predictions | None = None
) -> Table:
    """Return one row a cell, with the predicted peak of its tensors on a GPU where there is one."""
    axes = axis_order(axis.name for axis in grid.axes)
    rows = [
        (
            *([cell.cell_id] if resolved else []),
            *(str(cell.value(axis)) for axis in axes),
            *([_peak(cell, predicted)] if predicted else []),
        )
        for cell in grid.cells
    ]
    counts = (("replicates", profile.run.replicates), ("repeats", profile.run.repeats))
    runs = "".join(f", {count} {word} each" for word, count in counts if count > 1)
    return Table(
        title=f"{profile.name}: {len(rows)} cells{runs}",
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


def _peak(cell: Cell, predicted: Predictions) -> str:
    found = predicted.of(cell.cell_id)
    return figure_text(found.tensors) if found else ABSENT


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
    }


def _peak_json(cell: Cell, predicted: Predictions) -> dict[str, Any] | None:
    found = predicted.of(cell.cell_id)
    return found.tensors.model_dump(mode="json") if found else None
