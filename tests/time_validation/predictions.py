"""The rows of CELLS.csv with their predicted step times, and the errors of constants fitted anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ftbench.base.errors import FtbenchError, PredictionError
from ftbench.estimation.kernel_time import Step, Steps
from ftbench.estimation.roofline import Rates, step_seconds
from ftbench.estimation.time_constants import load_interval_factors, load_time_constants
from ftbench.estimation.time_interval import gaps_of, interval_of, least_seconds
from tests.time_validation import fit
from tests.time_validation.cards import cards
from tests.time_validation.workloads import StepWorks, workload_of

COLUMNS = ("predicted_step_s", "predicted_low_s", "predicted_high_s", "roofline_s", "not_predicted")
# The software of a row: torch older than 1.12, by CELLS.csv's column `era`.
_OLD = "2020-21"
# Sources that ran the same code count as one, so that leaving one out leaves nothing of it.
_SAME_CODE = {"nvidia-dle": "lambda"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row that can be predicted: its place in the file and its step."""

    place: int
    step: Step


def steps_of(cells: pd.DataFrame) -> tuple[list[Row], dict[int, str]]:
    """Return the rows that can be predicted, and for every other the reason, by its place."""
    works = StepWorks()
    found, refused = [], {}
    for place, cell in enumerate(cells.to_dict("records")):
        try:
            found.append(Row(place, _step(cell, works)))
        except FtbenchError as error:
            refused[place] = " ".join(str(error).split())
    return found, refused


def _step(cell: Mapping[str, object], works: StepWorks) -> Step:
    name, precision = str(cell["gpu"]), str(cell["precision"])
    if name not in cards():
        raise PredictionError("no data sheet of this card", got=name)
    card = cards()[name]
    if precision not in card.peak_flops:
        raise PredictionError(f"the card has no {precision}", got=name)
    workload = workload_of(str(cell["workload"]))
    old = cell.get("era") == _OLD
    trainer = workload.family in ("hf", "steps_of_four")
    return Step(
        work=works.work(workload, int(cell["batch"])),
        card=card,
        dtype="tf32" if precision == "tf32" else "fp32",
        old=old,
        loops=trainer and old,  # the Trainer's own AdamW of those years
        waits=trainer or workload.family in ("nv", "vit"),
    )


def predict_rows(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[Row]]:
    """Return the rows with the columns of `COLUMNS`, by the constants that ftbench has; and those predicted."""
    rows, refused = steps_of(cells)
    constants, factors = load_time_constants(), load_interval_factors()
    seconds = Steps([row.step for row in rows]).seconds(constants)
    table: list[dict[str, object]] = [dict.fromkeys(COLUMNS) for _ in range(len(cells))]
    for row, value, host in zip(rows, seconds.total, seconds.host_share, strict=True):
        step, precision = row.step, cells["precision"].iloc[row.place]
        gaps = gaps_of(step, precision, host_share=float(host))
        floor = least_seconds(step, constants)
        of = interval_of(float(value), gaps, factors, floor=floor).seconds
        rates = Rates(
            step.card.name,
            precision,
            step.card.peak_flops[precision],
            step.card.bandwidth_bytes_per_s,
        )
        values = (of.value, of.low, of.high, step_seconds(step.work, rates).value, "")
        table[row.place] = dict(zip(COLUMNS, values, strict=True))
    for place, reason in refused.items():
        table[place]["not_predicted"] = reason
    return pd.concat([cells, pd.DataFrame(table, index=cells.index)], axis=1), rows


def errors(cells: pd.DataFrame, predicted: pd.DataFrame, rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines on the errors of rows with measured seconds: as shipped, and fitted anew with parts left out."""
    kept = [row for row in rows if cells["step_s"].iloc[row.place] > 0]
    known = cells.iloc[[row.place for row in kept]].reset_index(drop=True)
    seconds = known["step_s"].to_numpy(float)
    steps = Steps([row.step for row in kept])
    shipped = predicted.iloc[[row.place for row in kept]].reset_index(drop=True)
    width = (shipped["predicted_high_s"] / shipped["predicted_low_s"]).to_numpy(float)
    family = known["source"].str.split("/").str[0]
    source = family.replace(_SAME_CODE)
    weights = fit.weights_of(list(zip(family, known["gpu"], strict=True)))
    _, constants = fit.fit(steps, seconds, weights)
    yield "constants fitted on these rows:"
    yield from (f"    {name} = {_short(value)}" for name, value in constants.model_dump().items())
    half = np.sqrt(width)
    results = {
        "as shipped": shipped["predicted_step_s"].to_numpy(float),
        "card left out": fit.left_out(steps, seconds, weights, list(known["gpu"])),
        "source left out": fit.left_out(steps, seconds, weights, list(source)),
        "the roofline's value": shipped["roofline_s"].to_numpy(float),
    }
    for name, values in results.items():
        yield _line(name, values, seconds, half)
        for by in ([family, known["precision"]], [known["gpu"]]):
            if name != "the roofline's value":
                yield from _by(by, values, seconds, half)
    yield f"width of intervals (high over low): {_counts(width)}"


def _by(
    keys: list[pd.Series], values: np.ndarray, seconds: np.ndarray, half: np.ndarray
) -> Iterator[str]:
    places = pd.Series(range(len(values))).groupby(keys).apply(list)
    for key, chosen in places.items():
        name = ", ".join(key) if isinstance(key, tuple) else str(key)
        yield "    " + _line(name, values[chosen], seconds[chosen], half[chosen])


def _line(name: str, values: np.ndarray, seconds: np.ndarray, half: np.ndarray) -> str:
    """Return the errors of rows, and how many lie in an interval of these factors up and down."""
    ratio = values / seconds
    off = np.abs(ratio - 1)
    inside = np.abs(np.log(ratio)) <= np.log(half) + 1e-9
    return (
        f"{name:32s} rows {len(ratio):3d}   predicted/measured {np.median(ratio):.2f}   off by"
        f" {np.median(off):6.1%} (median) {np.quantile(off, 0.9):6.1%} (p90) {off.max():6.1%} (most)   in interval"
        f" {inside.mean():.0%}"
    )


def _short(value: object) -> object:
    return {k: round(v, 3) for k, v in value.items()} if isinstance(value, dict) else f"{value:.4g}"


def _counts(width: np.ndarray) -> str:
    sizes, counts = np.unique(width.round(2), return_counts=True)
    return ", ".join(f"{size} ({count})" for size, count in zip(sizes, counts, strict=True))
