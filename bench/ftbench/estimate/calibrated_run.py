"""Calibrated run: the seconds of steps and of whole fine-tunes on a calibrated device, and its checks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ftbench.analysis.fits.laws import Interval
from ftbench.estimate.calibrated_time import MeasuredSpeed
from ftbench.estimate.roofline import STEP_S, seconds_beside
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu
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

# The source of a context that was measured here.
MEASURED_HERE = "measured by `ftbench calibrate`"


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
    of_evaluation = job.evaluations * job.eval_documents / work.evaluation.documents
    evaluated = speed.seconds(work.evaluation).total * of_evaluation
    value = speed.seconds(work.step).total * passes + evaluated
    low = speed.seconds((least or work).step).total * passes + evaluated
    beside = seconds_beside(job, work)
    return Interval(value + beside.value, low / factor + beside.low, value * factor + beside.high)


def of_card(gpu: Gpu, calibrations: Iterable[Calibration]) -> Calibration | None:
    """Return the calibration of a card of this kind."""
    names = {gpu.name, *gpu.products}
    cards = (one for one in calibrations if one.device.kind == "cuda")
    return next((one for one in cards if one.device.name in names), None)


def of_cpu(calibrations: Iterable[Calibration]) -> Calibration | None:
    """Return the calibration of a CPU."""
    return next((one for one in calibrations if one.device.kind == "cpu"), None)


def with_measured_memory(gpu: Gpu, calibrations: Iterable[Calibration]) -> Gpu:
    """Return a card with the total memory and the context that were measured on one of its kind."""
    found = of_card(gpu, calibrations)
    if found is None:
        return gpu
    changes: dict[str, object] = {}
    if found.device.total_memory_bytes is not None:
        total = found.device.total_memory_bytes
        changes |= {"memory_low_bytes": total, "memory_bytes": total}
    if found.card.context_bytes is not None:
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
