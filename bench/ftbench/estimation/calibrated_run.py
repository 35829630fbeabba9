"""Calibrated run: the seconds of steps and of whole fine-tunes on a calibrated device, and its checks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ftbench.analysis.fits.laws import Interval
from ftbench.base.errors import ProfileError
from ftbench.estimation.calibrated_time import MeasuredSpeed
from ftbench.estimation.roofline import STEP_S, seconds_beside
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import (
    MEASURED_HERE,
    UNKNOWN_CONTEXT_BYTES,
    Gpu,
    custom_gpu,
    find_gpu,
    same_name,
)
from ftbench.plan.schedule import Schedule
from ftbench.records.calibration import Calibration, CellCheck
from ftbench.records.prediction import CellWork, Predictions
from ftbench.records.record import Record

# The factor up and down of a calibrated time is at least this: a device is not as fast on every day.
LEAST_FACTOR = 1.15
# Three cells show less than the worst that occurs: the largest error among them is widened by this exponent.
_WIDENED = 1.5
# Without cells: the factor of steps on cards that were not measured (`time_constants.toml`, interval.inside).
_UNCHECKED_FACTOR = 1.4

# In a container a card does not tell its processes apart, and the memory of others counts as context. More than on
# any card that was measured, with half as much again, is not taken.
_MOST_CONTEXT_BYTES = UNKNOWN_CONTEXT_BYTES[1] * 3 // 2


def step_seconds(speed: MeasuredSpeed, work: CellWork) -> float:
    """Return the seconds of an optimizer step of a cell: its kernels, and what the Trainer adds."""
    return speed.seconds(work.step).total + STEP_S.at("usual")


def factor_of_cells(cells: Sequence[CellCheck]) -> float:
    """Return the factor up and down of times on a device with these cells."""
    if not cells:
        return _UNCHECKED_FACTOR
    worst = max(abs(math.log(cell.predicted_step_s / cell.measured_step_s)) for cell in cells)
    return max(LEAST_FACTOR, math.exp(_WIDENED * worst))


def run_seconds(
    job: Schedule, work: CellWork, speed: MeasuredSpeed, factor: float, least: CellWork | None
) -> Interval:
    """Return the seconds of a whole fine-tune: steps, evaluations, saving and the start.

    `least` is a lower bound of the work, if it varies.
    """
    passes = job.documents / work.step.documents
    evaluated = 0.0
    if job.evaluations:
        of_evaluation = job.evaluations * job.eval_documents / work.evaluation.documents
        evaluated = speed.seconds(work.evaluation).total * of_evaluation
    value = speed.seconds(work.step).total * passes + evaluated
    low = speed.seconds((least or work).step).total * passes + evaluated
    beside = seconds_beside(job, work)
    return Interval(value + beside.value, low / factor + beside.low, value * factor + beside.high)


def of_card(gpu: Gpu, calibrations: Iterable[Calibration]) -> Calibration | None:
    """Return the calibration of a card of this kind."""
    return next((one for one in calibrations if _is_of(one, gpu)), None)


def _is_of(calibration: Calibration, gpu: Gpu) -> bool:
    return any(card.name == gpu.name for card in cards_of(calibration))


def cards_of(calibration: Calibration) -> tuple[Gpu, ...]:
    """Return the card that was calibrated: the catalogue's, or one of its name, size and compute capability.

    None for a CPU, and for a card of a compute capability that predictions do not know.
    """
    device = calibration.device
    if device.kind == "cpu":
        return ()
    try:
        return (find_gpu(device.name),)
    except ProfileError:
        pass
    if device.compute_capability is None or device.total_memory_bytes is None:
        return ()
    try:
        card = custom_gpu(f"{device.total_memory_bytes} B", device.compute_capability)
    except ProfileError:
        return ()
    return (card.model_copy(update={"name": device.name, "memory_source": MEASURED_HERE}),)


def card_named(text: str, calibrations: Iterable[Calibration]) -> Gpu | None:
    """Return the calibrated card that has a name, as `find_gpu` compares names; None if there is none."""
    cards = (card for one in calibrations for card in cards_of(one))
    return next((card for card in cards if same_name(card.name, text)), None)


def of_cpu(calibrations: Iterable[Calibration]) -> Calibration | None:
    """Return the first calibration of a CPU."""
    return next((one for one in calibrations if one.device.kind == "cpu"), None)


def with_first(calibrations: Iterable[Calibration], name: str) -> tuple[Calibration, ...]:
    """Return calibrations, those of a device of this name first."""
    return tuple(sorted(calibrations, key=lambda one: one.device.name != name))


def with_measured_memory(gpu: Gpu, calibrations: Iterable[Calibration]) -> Gpu:
    """Return a card with the total memory and the context that were measured on one of its kind."""
    found = of_card(gpu, calibrations)
    if found is None:
        return gpu
    changes: dict[str, object] = {}
    if found.device.total_memory_bytes is not None:
        total = found.device.total_memory_bytes
        changes |= {
            "memory_low_bytes": total,
            "memory_bytes": total,
            "memory_source": MEASURED_HERE,
        }
    if found.card.context_bytes is not None and found.card.context_bytes <= _MOST_CONTEXT_BYTES:
        changes["context_measured_bytes"] = (found.card.context_bytes,)
        changes["context_source"] = MEASURED_HERE
    return gpu.model_copy(update=changes)


def with_cells(calibration: Calibration, cells: Sequence[CellCheck]) -> Calibration:
    """Return a calibration with the cells that check it."""
    return calibration.model_copy(update={"cells": tuple(cells)})


def checks_of(
    calibration: Calibration, records: Iterable[Record], predicted: Predictions
) -> list[CellCheck]:
    """Return the cells that finished and were predicted, with the median seconds of a step both ways."""
    speed = MeasuredSpeed(calibration)
    found = []
    for record in records:
        prediction = predicted.of(record.cell.cell_id)
        steps = record.measurement.steps if record.measurement else None
        if steps is None or prediction is None or prediction.work is None:
            continue
        if not speed.covers(prediction.work.step):
            continue
        found.append(
            CellCheck(
                name=_name(record.cell),
                predicted_step_s=step_seconds(speed, prediction.work),
                measured_step_s=steps.median_s,
            )
        )
    return found


def _name(cell: Cell) -> str:
    return f"{cell.per_device_train_batch_size} x {cell.max_length}"
