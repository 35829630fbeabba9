"""Predicted programs: the baseline that the predictions of a user's own training loop amount to. Pure.

Each set of arguments is a group of its own, with its parts, so that every change is attributed in the cell that it
is of. Arguments are settings called `arg.NAME`: a setting of the Trainer may have the same name, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftbench.gating.baseline import Baseline, CellBytes
from ftbench.gating.places import Place
from ftbench.gating.predicted import (
    STEP,
    RefusedGroup,
    architectures_of,
    cards_of,
    group_of_steps,
    steps_workload,
    versions_of,
)
from ftbench.plan.gpus import Gpu
from ftbench.plan.programs import NUM_PROCESSES, ProgramCell, ProgramGrid
from ftbench.records.prediction import AttentionKernel, CellPrediction, Predictions

_ARGUMENT = "arg."


def baseline_of_program(
    whole: ProgramGrid,
    predictions: Predictions,
    gpus: Sequence[Gpu] = (),
    *,
    attention_kernel: AttentionKernel | None = None,
) -> Baseline:
    """Return what predictions of a program's cells say; cells without one are left out.

    The predictions must have the breakdown of every cell. `whole` is the whole grid: the arguments that are equal
    in all of its cells belong to the workload.
    """
    groups = []
    for cell in whole.cells:
        predicted = predictions.of(cell.cell_id)
        if predicted is not None and predicted.breakdown is not None:
            settings = _settings(cell, _varying(whole))
            groups.append(group_of_steps(settings, _cell_bytes(predicted), predicted.breakdown))
    common = set(whole.axis_names) - _varying(whole)
    return Baseline(
        profile=whole.program.name,
        versions=versions_of(predictions.versions),
        architectures=architectures_of(gpus),
        attention_kernel=attention_kernel,
        workload={
            "program": whole.program.name,
            **steps_workload(whole.cells[0].steps),
            **_settings(whole.cells[0], common),
        },
        groups=tuple(groups),
    )


def refused_of_program(whole: ProgramGrid, predictions: Predictions) -> tuple[RefusedGroup, ...]:
    """Return the cells that were refused, each as a group."""
    cells = {cell.cell_id: cell for cell in whole.cells}
    return tuple(
        RefusedGroup(_settings(cells[one.cell_id], _varying(whole)), one.reason.partition("\n")[0])
        for one in predictions.refused
    )


def places_left_out(whole: ProgramGrid, chosen: ProgramGrid) -> frozenset[Place]:
    """Return the places of the cells of a grid that are not in its chosen part."""
    kept = set(chosen.cells)
    return frozenset(
        Place(_settings(cell, _varying(whole)), STEP) for cell in whole.cells if cell not in kept
    )


def _varying(whole: ProgramGrid) -> set[str]:
    return {axis.name for axis in whole.axes if len(axis.values) > 1}


def _settings(cell: ProgramCell, names: set[str]) -> Mapping[str, Any]:
    """Return some of a cell's arguments as settings, in their order."""
    chosen = {f"{_ARGUMENT}{k}": value for k, value in cell.values.items() if k in names}
    if cell.num_processes is not None and NUM_PROCESSES in names:
        chosen[NUM_PROCESSES] = cell.num_processes
    return chosen


def _cell_bytes(predicted: CellPrediction) -> CellBytes:
    return CellBytes(
        cell=STEP,
        tensors_bytes=predicted.tensors.value_bytes,
        live_blocks=predicted.live_blocks,
        growth_bytes=predicted.growth.nbytes if predicted.growth else 0,
        cards=cards_of(predicted),
    )
