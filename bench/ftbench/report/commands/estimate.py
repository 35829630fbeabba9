"""An estimate as tables and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from ftbench.base.errors import ProfileError
from ftbench.base.units import (
    SECONDS_PER_HOUR,
    ByteUnit,
    byte_unit,
    counted,
    format_bytes,
    format_seconds,
)
from ftbench.estimation.answers import EstimatedFigure
from ftbench.estimation.estimate import DeviceEstimate, Estimate, MeasuredRuns
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.scores import SCORES
from ftbench.records.figures import READINGS
from ftbench.report.commands.estimate_sentences import absence_words, note_words, source_words
from ftbench.report.elements.table import ABSENT, Table
from ftbench.report.elements.words import axis_word

WORDS = {
    "time_s": "time",
    "device_hours": "device-hours",
    "cost_usd": "money",
    "energy_j": "energy",
    **{kind.name: kind.word for kind in SCORES},
    "tensors_bytes": "tensors",
    "requested_bytes": "requested",
    "allocated_bytes": "peak allocated",
    "reserved_bytes": "peak reserved",
    "process_bytes": "process",
    **{figure.name: figure.word for figure in READINGS},
}
LEGEND = (
    "95 %: 95 of 100 runs lie inside; 90 %: 90 of 100 published steps do; calibrated: as far as the cells of a"
    " calibration were off, and half as much again; bounds: from the least that is"
    " possible to the most that is to be expected; simulated: over all that is not known of the allocator"
)


def headline(found: Estimate) -> list[str]:
    """Return the run that is estimated, and the values of axes that nobody gave."""
    cell, job = found.target.cell, found.job
    axes = ", ".join(f"{axis_word(name)} {cell.facets[name]:,}" for name in REQUIRED_AXES)
    steps = (
        f"{counted(job.steps, 'step')}, {counted(job.evaluations, 'evaluation')} of"
        f" {counted(job.eval_documents, 'example')}"
    )
    flops = f", {_flops(found.flops)}" if found.flops is not None else ""
    lines = [f"{found.target.profile.name}, not run: {axes} ({steps}{flops})"]
    if found.target.assumed:
        taken = ", ".join(f"{axis_word(k)} {v}" for k, v in found.target.assumed.items())
        lines.append(f"from the profile, its largest or only: {taken}")
    return lines


def _flops(count: float) -> str:
    for size, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e9:.3g} GFLOP"


def device_table(device: DeviceEstimate, score: EstimatedFigure) -> Table:
    """Return one row per figure: its value, its interval, the kind of interval and its source."""
    rows = [_row(figure) for figure in (*device.figures, score)]
    if device.verdict is not None:
        rows.append(("fits", device.verdict, ABSENT, ABSENT, "", "against the card's memory"))
    if device.largest is not None:
        sure, may = device.largest.certain, device.largest.possible
        source = "at this length, predicted"
        rows.append(("largest batch", f"{sure:,}", f"{sure:,}", f"{may:,}", "simulated", source))
    price = f", {device.price.usd_per_hour:g} USD per hour" if device.price else ""
    return Table(
        title=f"On {device.device}{price}",
        columns=("figure", "value", "low", "high", "interval", "source"),
        rows=tuple(rows),
        numeric=(False, True, True, True, False, False),
    )


def _row(figure: EstimatedFigure) -> tuple[str, ...]:
    word = WORDS.get(figure.name, figure.name)
    if figure.absent is not None:
        return (word, ABSENT, ABSENT, ABSENT, "", f"absent: {absence_words(figure.absent)}")
    values = (figure.value, figure.low, figure.high)
    among = byte_unit(abs(value) for value in values if value is not None)
    texts = (figure_text(figure.name, value, among) for value in values)
    return (word, *texts, figure.interval or "", _source(figure))


def _source(figure: EstimatedFigure) -> str:
    return source_words(figure.source) if figure.source else ""


def figure_text(name: str, value: float | None, unit: ByteUnit | None = None) -> str:
    """Return a figure of an estimate with its unit; bytes in a given one."""
    if value is None:
        return ABSENT
    if name.endswith("_bytes"):
        return format_bytes(round(value), unit)
    if name.endswith("_s"):
        return format_seconds(value)
    if name.endswith("_hours"):
        return f"{value:,.2f} h" if value >= 0.1 else f"{value:.2g} h"
    if name.endswith("_usd"):
        return f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"
    if name.endswith("_j"):
        hours = value / SECONDS_PER_HOUR
        return f"{hours:,.0f} Wh" if hours >= 100 else f"{hours:.3g} Wh"
    return f"{value:.3f}"


def nothing_to_estimate_on(measured: MeasuredRuns) -> ProfileError:
    """Return the error if no card was asked for and no run was measured."""
    return ProfileError(
        "nothing to estimate on",
        where="ftbench estimate",
        expected="--gpu NAME, or --runs RUN_DIR with runs that finished",
        hint="; ".join(map(note_words, measured.notes)) or None,
    )


def estimate_json(found: Estimate) -> dict[str, Any]:
    """Return an estimate as JSON data: bytes, seconds, hours, USD and joules, by the name's end."""
    cell = found.target.cell
    return {
        "profile": found.target.profile.name,
        "cell_id": cell.cell_id,
        "cell": {name: cell.facets[name] for name in REQUIRED_AXES},
        "assumed": dict(found.target.assumed),
        "job": dataclasses.asdict(found.job) | {"flops": found.flops},
        "devices": [_device_json(device) for device in found.devices],
        "score": _answer_json(found.score),
        "notes": list(map(note_words, found.notes)),
        "versions": dict(found.versions),
    }


def _device_json(device: DeviceEstimate) -> dict[str, Any]:
    largest = device.largest
    return {
        "device": device.device,
        "usd_per_hour": device.price and device.price.usd_per_hour,
        "list_price": device.price
        and device.price.listed
        and device.price.listed.model_dump(mode="json"),
        "figures": {figure.name: _answer_json(figure) for figure in device.figures},
        "verdict": device.verdict,
        "largest_batch": largest and {"certain": largest.certain, "possible": largest.possible},
        "notes": list(map(note_words, device.notes)),
    }


def _answer_json(figure: EstimatedFigure) -> dict[str, Any]:
    """Return a figure's value and interval with their source; or null with the reason."""
    if figure.absent is not None:
        return {"value": None, "absent": absence_words(figure.absent)}
    return {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "interval": figure.interval,
        "source": _source(figure),
    }
