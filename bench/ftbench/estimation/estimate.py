"""Estimate: the costs of a run that was not made, each figure with its interval and its source.

Time is from a fit of measured runs if there are runs on the same kind of device, else from a model of
kernels or, if that does not cover the run, a roofline. Memory on a card is predicted; money and energy
follow from time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbench.analysis.fits.laws import Fit
from ftbench.analysis.fits.scaling import MEASURED_MEMORY
from ftbench.analysis.tables.cells_table import ABSENT_SETTING
from ftbench.base.errors import DamagedFile, ProfileError, RunDirectoryError
from ftbench.estimation.answers import (
    EstimatedFigure,
    calibrated_time,
    card_time,
    costs,
    from_fit,
    from_prediction,
    measured_time,
    score,
)
from ftbench.estimation.calibrated_run import card_named, of_card, of_cpu
from ftbench.estimation.evidence import (
    Curves,
    Evidence,
    curves_for,
    evidence_for,
    workload_differences,
)
from ftbench.estimation.prices import GivenPrices, Price, prices_of
from ftbench.estimation.reasons import (
    CalibratedTimes,
    CalibratedWithOtherTorch,
    DamagedRecords,
    FromPrediction,
    KernelTimes,
    MayNotFit,
    NoRunFinished,
    NotCalibrated,
    Note,
    NoTimeFromRuns,
    NotPredicted,
    OtherWorkload,
    PredictedForCard,
    RooflineRates,
    RunsUntrusted,
    Source,
    TimeFromKernels,
    TimeFromRoofline,
    TooFewExamples,
    TracedOnCpu,
    WeakFit,
)
from ftbench.estimation.roofline import flops_of
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu, find_gpu
from ftbench.plan.grid import expand
from ftbench.plan.profile import REQUIRED_AXES, GridBlock, Profile
from ftbench.plan.schedule import Schedule, schedule_of
from ftbench.plan.sources import DataSource, ModelSource
from ftbench.records.calibration import Calibration
from ftbench.records.environment import Device
from ftbench.records.invariants import untrusted_figures
from ftbench.records.prediction import CardPrediction, LargestBatch, Predictions
from ftbench.records.record import Record
from ftbench.records.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class DeviceEstimate:
    """The costs of a run on one device."""

    device: str
    price: Price | None
    figures: tuple[EstimatedFigure, ...]
    verdict: str | None = None
    largest: LargestBatch | None = None
    notes: tuple[Note, ...] = ()


@dataclasses.dataclass(frozen=True)
class TargetRun:
    """The run that is asked about, and the values of axes that nobody gave."""

    profile: Profile
    cell: Cell
    assumed: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """All of an answer: the run, its job, the devices, and the score, which no device changes."""

    target: TargetRun
    job: Schedule
    flops: float | None
    devices: tuple[DeviceEstimate, ...]
    score: EstimatedFigure
    notes: tuple[Note, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    refused: str | None = None  # why the run could not be predicted
    measured: tuple[Record, ...] = ()  # the finished runs of the same workload, of any cell


def target_of(
    profile: Profile, model: ModelSource, data: DataSource, given: Mapping[str, int | None]
) -> TargetRun:
    """Return the cell of a profile's workload with these values of axes.

    A length, batch or train_size that is not given is the profile's largest. Other axes are those of
    one block, the first of those that have most of these values: the largest number, the first word; axes
    that the block lacks are the profile's own. `assumed` has all values that could have been others.
    """
    blocks = [block.axes for block in profile.grid]
    wanted = {
        name: given.get(name) or max(max(block[name]) for block in blocks) for name in REQUIRED_AXES
    }
    base = max(blocks, key=lambda block: sum(wanted[name] in block[name] for name in wanted))
    chosen = {name: _largest(name, options) for name, options in base.items()}
    chosen |= wanted | {name: value for name, value in given.items() if value is not None}
    block = GridBlock.model_validate({name: [value] for name, value in chosen.items()})
    one = profile.model_copy(update={"grid": (block,)})
    cell = expand(one, model, data).cells[0]
    assumed = {
        name: cell.value(name)
        for name in dict.fromkeys(name for block in blocks for name in block)
        if given.get(name) is None and (name in REQUIRED_AXES or _varies(name, blocks))
    }
    return TargetRun(profile, cell, assumed)


def _varies(name: str, blocks: Sequence[Mapping[str, Sequence[Any]]]) -> bool:
    """Return whether an axis has more than one value; a block without it counts as another value."""
    values = {repr(value) for block in blocks for value in block.get(name, ())}
    return len(values) > 1 or any(name not in block for block in blocks)


def _largest(name: str, options: Sequence[Any]) -> Any:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return max(options) if numbers and name != "seed" else options[0]


def on_card(
    target: TargetRun,
    gpu: Gpu,
    predictions: Predictions,
    *,
    price: Price | None,
    evidence: Evidence | None,
    calibration: Calibration | None = None,
) -> DeviceEstimate:
    """Return the costs of a run on a card: from runs on it if there are any, else predicted."""
    cell = target.cell
    found = predictions.of(cell.cell_id)
    card = next((one for one in found.cards if one.gpu == gpu.name), None) if found else None
    refused = NotPredicted(next((one.reason for one in predictions.refused), ""))
    time = card_time(cell, gpu, found, refused, calibration)
    notes: list[Note] = []
    if evidence is not None:
        measured, measured_notes = measured_time(cell, evidence)
        if measured.value is not None or time.value is None:
            time, notes = measured, measured_notes
        elif measured.absent is not None:
            notes = [NoTimeFromRuns(measured.absent)]
    if card is not None and card.verdict != "fits":
        notes.insert(0, MayNotFit(certain=card.verdict == "does not fit"))
    return DeviceEstimate(
        device=gpu.name,
        price=price,
        figures=(
            *costs(time, price, evidence),
            *(_card_memory(card) if card else [EstimatedFigure("reserved_bytes", absent=refused)]),
        ),
        verdict=card.verdict if card else None,
        largest=next((one for one in predictions.largest if one.gpu == gpu.name), None),
        notes=tuple(notes),
    )


def on_measured_device(
    target: TargetRun,
    evidence: Evidence,
    predictions: Predictions | None,
    *,
    price: Price | None,
    calibration: Calibration | None = None,
) -> DeviceEstimate:
    """Return the costs of a run on the machine that runs were measured on; `calibration` is of its CPU.

    Its time is the calibrated one if the runs give none.
    """
    cell = target.cell
    time, notes = measured_time(cell, evidence)
    found = predictions.of(cell.cell_id) if predictions else None
    absent = time.absent
    if absent is not None and calibration is not None:
        calibrated = calibrated_time(cell, found, calibration)
        if calibrated is not None:
            time, notes = calibrated, [NoTimeFromRuns(absent)]
    memory = []
    if found is not None:
        memory.append(from_prediction("tensors_bytes", found.tensors, TracedOnCpu()))
    fits = {name: evidence.fit(name) for name in MEASURED_MEMORY}
    for name, fit in fits.items():
        if isinstance(fit, Fit):
            memory.append(from_fit(name, fit, cell, evidence))
            if fit.weak:
                notes.append(WeakFit(name, fit.weak))
        elif name == MEASURED_MEMORY[0]:
            memory.append(EstimatedFigure(name, absent=fit))
    return DeviceEstimate(
        device=evidence.device.name,
        price=price,
        figures=(*costs(time, price, evidence), *memory),
        notes=tuple(notes),
    )


def on_calibrated_cpu(
    target: TargetRun,
    calibration: Calibration,
    predictions: Predictions | None,
    *,
    price: Price | None,
) -> DeviceEstimate:
    """Return the costs of a run on a CPU that was calibrated, and on which no run was measured."""
    found = predictions.of(target.cell.cell_id) if predictions else None
    time = calibrated_time(target.cell, found, calibration)
    memory = (
        [] if found is None else [from_prediction("tensors_bytes", found.tensors, TracedOnCpu())]
    )
    return DeviceEstimate(
        device=calibration.device.name,
        price=price,
        figures=(
            *costs(time or EstimatedFigure("time_s", absent=NotCalibrated()), price, None),
            *memory,
        ),
    )


def _card_memory(card: CardPrediction) -> list[EstimatedFigure]:
    return [
        from_prediction("requested_bytes", card.requested, PredictedForCard("requests")),
        from_prediction("allocated_bytes", card.allocated, PredictedForCard("torch.cuda")),
        from_prediction("reserved_bytes", card.reserved, PredictedForCard("torch.cuda")),
        from_prediction("process_bytes", card.process, PredictedForCard("NVML")),
    ]


def card_of_device(device: Device, calibrations: Sequence[Calibration] = ()) -> Gpu | None:
    """Return the catalogue's card of a measured device, or the one calibrated under its name.

    None for a processor, and for a card that neither knows.
    """
    if device.kind != "cuda":
        return None
    try:
        return find_gpu(device.name)
    except ProfileError:
        return card_named(device.name, calibrations)


@dataclasses.dataclass(frozen=True)
class MeasuredRuns:
    """The evidence of a run directory for a run: by device, and for its score; all its finished runs."""

    evidence: tuple[Evidence, ...] = ()
    curves: Curves = ()
    notes: tuple[Note, ...] = ()
    records: tuple[Record, ...] = ()


def read_measured(path: Path, target: TargetRun, *, asked: bool) -> MeasuredRuns:
    """Return the evidence of a directory for a run; none if it is not there and was not asked for.

    Raises RunDirectoryError for one of another workload; one that was not asked for is left out.
    """
    if not asked and not (path / "records").is_dir():
        return MeasuredRuns()
    directory = RunDirectory.open(path)
    records, damaged = directory.survey()
    finished = [record for record in records if record.status == "ok"]
    if not finished:
        return MeasuredRuns(notes=(NoRunFinished(str(path)),))
    differences = workload_differences(target.cell, finished)
    if differences:
        if asked:
            raise RunDirectoryError(
                "runs of another workload",
                where=str(path),
                got=_named({one.name: one.of_runs for one in differences}),
                expected=_named({one.name: one.asked for one in differences}),
                hint="measure this one with `ftbench run`, or change the profile with --set",
            )
        return MeasuredRuns(notes=(OtherWorkload(str(path), differences[0]),))
    broken = sum(bool(untrusted_figures(record)) for record in finished)
    notes: list[Note] = []
    if damaged:
        notes.append(DamagedRecords(len(damaged), str(path)))
    if broken:
        notes.append(RunsUntrusted(broken, len(finished), str(path)))
    return MeasuredRuns(
        evidence=tuple(evidence_for(target.cell, finished, directory.environments())),
        curves=curves_for(target.cell, finished),
        notes=(*notes, *_pool_notes(directory, target.cell)),
        records=tuple(finished),
    )


def _named(settings: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {ABSENT_SETTING if value is None else value}" for name, value in settings.items()
    )


def _pool_notes(directory: RunDirectory, cell: Cell) -> list[Note]:
    try:
        pool = directory.read_preparation().train_pool
    except DamagedFile:
        return []
    return [TooFewExamples(pool, cell.train_size)] if pool < cell.train_size else []


def devices_of(
    gpus: Sequence[Gpu], measured: MeasuredRuns, calibrations: Sequence[Calibration] = ()
) -> tuple[list[Gpu], bool]:
    """Return the cards to predict for, and whether to predict for a processor too.

    Without cards that were asked for, they are the devices that runs were measured on; without any, a
    calibrated CPU.
    """
    if gpus:
        return list(gpus), False
    found = [card_of_device(evidence.device, calibrations) for evidence in measured.evidence]
    cards = {gpu.name: gpu for gpu in found if gpu is not None}
    measured_on_cpu = any(e.device.kind == "cpu" for e in measured.evidence)
    alone = not measured.evidence and of_cpu(calibrations) is not None
    return list(cards.values()), measured_on_cpu or alone


def estimate(
    target: TargetRun,
    gpus: Sequence[Gpu],
    measured: MeasuredRuns,
    *,
    on_cards: Predictions | None,
    on_cpu: Predictions | None,
    prices: GivenPrices,
    calibrations: Sequence[Calibration] = (),
) -> Estimate:
    """Return the costs of a run on these cards; without any, on the devices that runs were measured on.

    Without such runs, they are those on a CPU that was calibrated.
    """
    predictions = [found for found in (on_cards, on_cpu) if found is not None]
    where: list[tuple[Gpu | None, Evidence | None]] = [
        (gpu, _of_card(gpu, measured.evidence, calibrations)) for gpu in gpus
    ] or [(card_of_device(one.device, calibrations), one) for one in measured.evidence]
    cpu = of_cpu(calibrations)
    if not where and cpu is not None:
        where = [(None, None)]
    devices = []
    of_each = prices_of(prices, [gpu for gpu, _ in where])
    for (gpu, evidence), price in zip(where, of_each, strict=True):
        if gpu is not None and on_cards is not None:
            known = of_card(gpu, calibrations)
            devices.append(
                on_card(target, gpu, on_cards, price=price, evidence=evidence, calibration=known)
            )
        elif evidence is None and cpu is not None:
            devices.append(on_calibrated_cpu(target, cpu, on_cpu, price=price))
        elif evidence is not None:
            same = cpu if cpu and cpu.device.name == evidence.device.name else None
            devices.append(
                on_measured_device(target, evidence, on_cpu, price=price, calibration=same)
            )
    works = [one.work for found in predictions for one in found.cells if one.work is not None]
    job = schedule_of(target.cell)
    notes: list[Note] = [FromPrediction(note) for found in predictions for note in found.notes]
    sources = [figure.source for one in devices for figure in one.figures]
    if any(isinstance(source, RooflineRates) for source in sources):
        notes.append(TimeFromRoofline())
    if any(isinstance(source, KernelTimes) for source in sources):
        notes.append(TimeFromKernels())
    notes += _other_torch(sources, predictions)
    refusals = [one.reason for found in predictions for one in found.refused]
    return Estimate(
        target=target,
        job=job,
        flops=flops_of(job, works[0]) if works else None,
        devices=tuple(devices),
        score=score(target.cell, measured.curves),
        notes=(*measured.notes, *dict.fromkeys(notes)),
        versions=predictions[0].versions if predictions else (),
        refused=refusals[0] if refusals else None,
        measured=measured.records,
    )


def _other_torch(
    sources: Iterable[Source | None], predictions: Iterable[Predictions]
) -> list[Note]:
    """Return a note for each calibration with another torch than the one here; a build (`+cu126`) is no other."""
    here = {dict(found.versions).get("torch") for found in predictions} - {None}
    used = [source.torch for source in sources if isinstance(source, CalibratedTimes)]
    return [
        CalibratedWithOtherTorch(calibrated, installed)
        for calibrated in dict.fromkeys(used)
        for installed in here
        if installed and installed.partition("+")[0] != calibrated.partition("+")[0]
    ]


def _of_card(
    gpu: Gpu, evidence: Sequence[Evidence], calibrations: Sequence[Calibration]
) -> Evidence | None:
    """Return the runs that were measured on a card of this kind."""
    for one in evidence:
        measured = card_of_device(one.device, calibrations)
        if measured is not None and measured.name == gpu.name:
            return one
    return None
