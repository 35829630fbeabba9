"""Estimate: what a run that was not made would cost, each figure with its interval and its origin.

Time is from a fit of measured runs where there are runs on the same kind of device, and a roofline
interval elsewhere; memory on a card is predicted; money and energy follow from time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftbench.analysis.fits.laws import Fit, LearningCurve, Refusal
from ftbench.analysis.fits.scaling import MEASURED_MEMORY
from ftbench.base.errors import DamagedFile, ProfileError, RunDirectoryError
from ftbench.estimate.answers import (
    EstimatedFigure,
    costs,
    from_fit,
    from_prediction,
    measured_time,
    roofline_time,
    score,
)
from ftbench.estimate.evidence import (
    Evidence,
    curves_for,
    evidence_for,
    workload_differences,
)
from ftbench.estimate.roofline import flops_of
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Gpu, find_gpu
from ftbench.plan.grid import expand
from ftbench.plan.profile import REQUIRED_AXES, GridBlock, Profile
from ftbench.plan.schedule import Schedule, schedule_of
from ftbench.plan.sources import DataSource, ModelSource
from ftbench.records.invariants import untrusted_figures
from ftbench.records.prediction import CardPrediction, LargestBatch, Predictions
from ftbench.records.record import Device
from ftbench.records.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class DeviceEstimate:
    """What a run would cost on one device."""

    device: str
    usd_per_hour: float | None
    figures: tuple[EstimatedFigure, ...]
    verdict: str | None = None
    largest: LargestBatch | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """The run that is asked about, and the values of axes that nobody gave."""

    profile: Profile
    cell: Cell
    assumed: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """All of an answer: the run, its job, the devices, and the score, which no device changes."""

    target: Target
    job: Schedule
    flops: float | None
    devices: tuple[DeviceEstimate, ...]
    score: EstimatedFigure
    notes: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    refused: str | None = None  # why the run could not be predicted


def target_of(
    profile: Profile, model: ModelSource, data: DataSource, given: Mapping[str, int | None]
) -> Target:
    """Return the cell of a profile's workload with these values of axes.

    Of length, batch and documents, what is not given is the profile's largest. Other axes are those of
    one block, the first of those that have most of these values: the largest number, the first word; what
    that block does not name is the profile's own. `assumed` has all that could have been otherwise.
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
    return Target(profile, cell, assumed)


def _varies(name: str, blocks: Sequence[Mapping[str, Sequence[Any]]]) -> bool:
    """Return whether an axis has more than one value, a block's silence among them."""
    values = {repr(value) for block in blocks for value in block.get(name, ())}
    return len(values) > 1 or any(name not in block for block in blocks)


def _largest(name: str, options: Sequence[Any]) -> Any:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in options)
    return max(options) if numbers and name != "seed" else options[0]


def prices_of(usd_per_hour: Sequence[float], devices: int) -> list[float | None]:
    """Return a price for each device: one for all, or one each; raises ProfileError."""
    for price in usd_per_hour:
        if not 0 < price < float("inf"):
            raise ProfileError(
                "not a price", where="--usd-per-hour", got=str(price), expected="a number above 0"
            )
    if not usd_per_hour:
        return [None] * devices
    if len(usd_per_hour) not in (1, devices):
        raise ProfileError(
            "as many prices as devices, or one for all",
            where="--usd-per-hour",
            got=str(len(usd_per_hour)),
            expected=f"1 or {devices}" if devices > 1 else "1",
        )
    return [*usd_per_hour] * (devices if len(usd_per_hour) == 1 else 1)


def on_card(
    target: Target,
    gpu: Gpu,
    predictions: Predictions,
    *,
    usd_per_hour: float | None,
    evidence: Evidence | None,
) -> DeviceEstimate:
    """Return what a run would cost on a card: from runs on it where there are any, else the roofline."""
    cell = target.cell
    found = predictions.of(cell.cell_id)
    card = next((one for one in found.cards if one.gpu == gpu.name), None) if found else None
    refused = next((one.reason for one in predictions.refused), "it was not predicted")
    time, notes = roofline_time(cell, gpu, found, refused), []
    if evidence is not None:
        measured, told = measured_time(cell, evidence)
        if measured.value is not None or time.value is None:
            time, notes = measured, told
        else:
            notes = [f"runs on this card give no time: {measured.absent}"]
    if card is not None and card.verdict != "fits":
        notes.insert(0, _VERDICT_NOTES[card.verdict])
    return DeviceEstimate(
        device=gpu.name,
        usd_per_hour=usd_per_hour,
        figures=(
            *costs(time, usd_per_hour, evidence),
            *(_card_memory(card) if card else [EstimatedFigure("reserved_bytes", absent=refused)]),
        ),
        verdict=card.verdict if card else None,
        largest=next((one for one in predictions.largest if one.gpu == gpu.name), None),
        notes=tuple(notes),
    )


_VERDICT_NOTES = {
    "does not fit": "it does not fit: the costs are of a run that ends out of memory",
    "too close to call": "too close to call: it may run out of memory",
}
ROOFLINE_NOTE = (
    "roofline: time was not measured on such a card. It follows from the run's FLOPs, exact, the bytes that its"
    " operators move and the card's rates: the low end cannot be undercut, the value is at usual shares of"
    " the rates, the high end at the least that are found"
)


def on_measured_device(
    target: Target,
    evidence: Evidence,
    predictions: Predictions | None,
    *,
    usd_per_hour: float | None,
) -> DeviceEstimate:
    """Return what a run would cost on the machine that runs were measured on."""
    cell = target.cell
    time, notes = measured_time(cell, evidence)
    found = predictions.of(cell.cell_id) if predictions else None
    memory = []
    if found is not None:
        memory.append(from_prediction("tensors_bytes", found.tensors, "traced, on the CPU"))
    fits = {name: evidence.fit(name) for name in MEASURED_MEMORY}
    for name, fit in fits.items():
        if isinstance(fit, Fit):
            memory.append(from_fit(name, fit, cell, evidence))
            if fit.weak:
                notes.append(f"the fit of {name} is weak: {fit.weak}")
        elif name == MEASURED_MEMORY[0]:
            memory.append(EstimatedFigure(name, absent=fit.reason))
    return DeviceEstimate(
        device=evidence.device.name,
        usd_per_hour=usd_per_hour,
        figures=(*costs(time, usd_per_hour, evidence), *memory),
        notes=tuple(notes),
    )


def _card_memory(card: CardPrediction) -> list[EstimatedFigure]:
    return [
        from_prediction(f"{name}_bytes", getattr(card, name), f"predicted, {figure_source}")
        for name, figure_source in (
            ("requested", "what tensors and kernels ask for"),
            ("allocated", "as torch.cuda counts"),
            ("reserved", "as torch.cuda counts"),
            ("process", "as NVML counts"),
        )
    ]


def card_of_device(device: Device) -> Gpu | None:
    """Return the catalogue's card of a measured device; None for a processor or an unknown card."""
    if device.kind != "cuda":
        return None
    try:
        return find_gpu(device.name)
    except ProfileError:
        return None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a run directory says of a run: for each device, and of its score; and what to know about it."""

    evidence: tuple[Evidence, ...] = ()
    curves: tuple[LearningCurve | Refusal, ...] = ()
    notes: tuple[str, ...] = ()


def read_measured(path: Path, target: Target, *, asked: bool) -> Measured:
    """Return what the runs of a directory say of a run; nothing where it is not there and was not asked for.

    Raises RunDirectoryError for one of another workload; one that was not asked for is left out.
    """
    if not asked and not (path / "records").is_dir():
        return Measured()
    directory = RunDirectory.open(path)
    records, damaged = directory.survey()
    finished = [record for record in records if record.status == "ok"]
    if not finished:
        return Measured(notes=(f"no run in {path} has finished",))
    differences = workload_differences(target.cell, finished)
    if differences:
        if asked:
            raise RunDirectoryError(
                "runs of another workload",
                where=str(path),
                got="; ".join(differences),
                hint="measure this one with `ftbench run`, or change the profile with --set",
            )
        return Measured(notes=(f"{path} is left out, its workload is another: {differences[0]}",))
    broken = sum(bool(untrusted_figures(record)) for record in finished)
    notes = [f"{len(damaged)} records in {path} cannot be read"] * bool(damaged)
    notes += [
        f"{broken} of {len(finished)} runs in {path} have figures that cannot be right: left out"
    ] * bool(broken)
    return Measured(
        evidence=tuple(evidence_for(target.cell, finished, directory.environments())),
        curves=curves_for(target.cell, finished),
        notes=(*notes, *_pool_note(directory, target.cell)),
    )


def _pool_note(directory: RunDirectory, cell: Cell) -> list[str]:
    """Return a note where there are not as many documents as the run would train on."""
    try:
        pool = directory.read_preparation().train_pool
    except DamagedFile:
        return []
    few = pool < cell.train_size
    return [f"the data has {pool:,} documents to train on, fewer than {cell.train_size:,}"] * few


def devices_of(gpus: Sequence[Gpu], measured: Measured) -> tuple[list[Gpu], bool]:
    """Return the cards to predict for, and whether to predict for a processor too.

    Without cards that were asked for, they are the devices that runs were measured on; raises
    ProfileError where there are none.
    """
    if gpus:
        return list(gpus), False
    if not measured.evidence:
        raise ProfileError(
            "nothing to estimate on",
            where="ftbench estimate",
            expected="--gpu NAME, or --runs RUN_DIR with runs that finished",
            hint="; ".join(measured.notes) or None,
        )
    found = [card_of_device(evidence.device) for evidence in measured.evidence]
    cards = {gpu.name: gpu for gpu in found if gpu is not None}
    return list(cards.values()), any(e.device.kind == "cpu" for e in measured.evidence)


def estimate(
    target: Target,
    gpus: Sequence[Gpu],
    measured: Measured,
    *,
    on_cards: Predictions | None,
    on_cpu: Predictions | None,
    usd_per_hour: Sequence[float],
) -> Estimate:
    """Return what a run would cost on these cards; without any, on what the runs were measured on."""
    predictions = [found for found in (on_cards, on_cpu) if found is not None]
    where: list[tuple[Gpu | None, Evidence | None]] = [
        (gpu, _of_card(gpu, measured.evidence)) for gpu in gpus
    ] or [(card_of_device(evidence.device), evidence) for evidence in measured.evidence]
    devices = []
    for (gpu, evidence), price in zip(where, prices_of(usd_per_hour, len(where)), strict=True):
        if gpu is not None and on_cards is not None:
            devices.append(on_card(target, gpu, on_cards, usd_per_hour=price, evidence=evidence))
        elif evidence is not None:
            devices.append(on_measured_device(target, evidence, on_cpu, usd_per_hour=price))
    works = [one.work for found in predictions for one in found.cells if one.work is not None]
    job = schedule_of(target.cell)
    notes = [note for found in predictions for note in found.notes]
    if any("roofline" in figure.source for one in devices for figure in one.figures):
        notes.append(ROOFLINE_NOTE)
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
    )


def _of_card(gpu: Gpu, evidence: Sequence[Evidence]) -> Evidence | None:
    """Return the runs that were measured on a card of this kind."""
    for one in evidence:
        measured = card_of_device(one.device)
        if measured is not None and measured.name == gpu.name:
            return one
    return None
