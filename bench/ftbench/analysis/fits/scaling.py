"""Scaling: how time and memory grow with length, batch and training examples, from a table of runs.

`scaling_table` has the runs, `fit_scaling` the laws: of the step time and the peaks fitted to cells
(`regression`), of the total put together from its phases (`total_time`), each checked on cells that it
was not given (`held_out`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ftbench.analysis.fits.exponents import EXACT, Noise, exponents, noise
from ftbench.analysis.fits.held_out import Columns, Validation, cross_validate
from ftbench.analysis.fits.laws import Exponent, Fit, FitGroup, Interval, Refusal
from ftbench.analysis.fits.reasons import (
    ColumnsMissing,
    ErrorAboveThreshold,
    NoneHeldOut,
    OneValueOf,
    Weakness,
)
from ftbench.analysis.fits.regression import (
    CellMeans,
    Law,
    Model,
    Numbers,
    TooFewCellsError,
    cells_of,
    fit,
)
from ftbench.analysis.fits.total_time import LAW, PARTS, STEP_LAWS, Total
from ftbench.analysis.tables.scaling_table import scaling_table as scaling_table
from ftbench.plan.profile import REQUIRED_AXES
from ftbench.plan.settings import COSTLESS

LENGTH_AND_BATCH = ("max_length", "per_device_train_batch_size")
# Readings of memory that a law in length and batch is fitted to: the host's own first.
MEASURED_MEMORY = (
    "peak_rss_bytes",
    "peak_cpu_tensors_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_process_bytes",
)
MEMORY_LAWS = (
    Law("m", (("1", "B*S"),)),
    Law("m", (("1", "B*S", "B*S^2"),)),
    # Small batches peak in the optimizer's step, large ones between forward and backward.
    Law("m", (("1",), ("1", "B*S"))),
    Law("m", (("1",), ("1", "B*S", "B*S^2"))),
    Law("m", (("1", "B*S"), ("1", "B*S"))),
    Law("m", (("1", "B*S"), ("1", "B*S", "B*S^2"))),
    Law("m", (("1", "B", "B*S"), ("1", "B", "B*S", "B*S^2"))),
)
# The median error on held-out cells from which a fit is called weak. Times of one cell vary by 3-5 % from
# run to run and RSS by 2 %, so a good law is within these; a prediction has no noise at all.
WEAK_TIME = 0.10
WEAK_MEASURED_MEMORY = 0.05
WEAK_PREDICTED_MEMORY = 0.01
# What the allocators round a tensor's size up to, on the CPU 64 and on CUDA 512 bytes: a residual
# within it is rounding, and the law is exact.
ALIGNMENT_BYTES = 512


def fit_scaling(table: pd.DataFrame, axes: Sequence[str]) -> tuple[FitGroup, ...]:
    """Return the fits of a table: one group per combination of the values of all other axes.

    `axes` are those of the table. All but length, batch, training examples, the seed and the settings that
    cost nothing (`COSTLESS`) split it; so do environments, if there are several. Runs with fewer training
    examples than a step takes have no step of their batch size: they are left out.
    """
    table = with_full_steps(table)
    splits = [name for name in axes if name not in {*REQUIRED_AXES, *COSTLESS}]
    if "environment_id" in table and table["environment_id"].nunique() > 1:
        splits.append("environment_id")
    if not splits:
        return (_group({}, table),) if len(table) else ()
    return tuple(
        _group(dict(zip(splits, key, strict=True)), rows)
        for key, rows in table.groupby(splits, dropna=False)
    )


def with_full_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have at least the training examples of one step: those that fits are made from."""
    if "examples_per_epoch" not in table:
        return table
    return table[table["examples_per_epoch"] >= table["examples_per_step"]]


def _group(fixed: Mapping[str, Any], table: pd.DataFrame) -> FitGroup:
    fits: dict[str, Fit] = {}
    refused: list[Refusal] = []
    found: list[Exponent] = []
    for cost, fitted in _costs(table):
        axes = REQUIRED_AXES if cost == "total_s" else LENGTH_AND_BATCH
        runs = table.dropna(subset=[cost])
        residual = None
        try:
            fits[cost], residual = fitted(runs, cost)
        except TooFewCellsError as error:
            refused.append(Refusal(cost, error.reason, fixed))
        alike = _of_one_size(runs) if cost in MEASURED_MEMORY else runs
        known = EXACT if cost.startswith("predicted_") else noise(alike, cost, axes, residual)
        if known is not None:
            found += exponents(alike, cost, axes, known)
    return FitGroup(fixed, fits, tuple(refused), tuple(found))


_Fitted = Callable[[pd.DataFrame, str], tuple[Fit, Noise]]


def _costs(table: pd.DataFrame) -> Iterator[tuple[str, _Fitted]]:
    """Yield the costs that a table has, each with how it is fitted."""
    if "step_median_s" in table:
        yield "step_median_s", _fit_step
    if "total_s" in table:
        yield "total_s", _fit_total
    predicted = [n for n in map(str, table) if n.startswith("predicted_") and n.endswith("_bytes")]
    for name in (*MEASURED_MEMORY, *predicted):
        if name in table and table[name].notna().any():
            yield name, _fit_memory


def _fit_step(runs: pd.DataFrame, cost: str) -> tuple[Fit, Noise]:
    return _fit_cells(runs, cost, STEP_LAWS, WEAK_TIME)


def _fit_memory(runs: pd.DataFrame, cost: str) -> tuple[Fit, Noise]:
    if cost in MEASURED_MEMORY:
        alike = _of_one_size(runs)
        return _fit_cells(alike, cost, MEMORY_LAWS, WEAK_MEASURED_MEMORY, others=runs)
    return _fit_cells(runs, cost, MEMORY_LAWS, WEAK_PREDICTED_MEMORY)


def _of_one_size(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of one train_size that all lengths and batches were run with; all runs if there is none.

    A process's peak grows a little with its steps: cells of more training examples would bend a law of length
    and batch. Of several sizes the one with the most runs is taken.
    """
    cells = runs.groupby(list(LENGTH_AND_BATCH)).ngroups
    counts = {
        size: len(own)
        for size, own in runs.groupby("train_size")
        if own.groupby(list(LENGTH_AND_BATCH)).ngroups == cells
    }
    return runs[runs["train_size"] == max(counts, key=lambda d: (counts[d], d))] if counts else runs


def _fit_cells(
    runs: pd.DataFrame,
    cost: str,
    laws: Sequence[Law],
    limit: float,
    *,
    others: pd.DataFrame | None = None,
) -> tuple[Fit, Noise]:
    """Return the fit of a cost that length and batch decide, and its noise; raises TooFewCellsError.

    `others` has the runs of every train_size: the law is checked on them too, so that its errors and
    intervals include the effect of training examples, which it has no term for.
    """
    axes = LENGTH_AND_BATCH if others is None else REQUIRED_AXES
    columns = _columns(runs, [*axes, cost])
    size = None if others is None or len(others) == len(runs) else runs["train_size"].iloc[0]

    def estimate(of: Columns) -> Model:
        own = of["train_size"] == size if size is not None else slice(None)
        return fit(laws, CellMeans.of_runs(*(of[name][own] for name in (*LENGTH_AND_BATCH, cost))))

    def predictor(model: Model) -> Callable[[Columns], tuple[Numbers, Numbers]]:
        return lambda at: (
            model.cost(*(at[name] for name in LENGTH_AND_BATCH)),
            model.half_width(*(at[name] for name in LENGTH_AND_BATCH)),
        )

    model = estimate(columns)
    everything = columns if others is None else _columns(others, [*axes, cost])
    validation = cross_validate(everything, cost, axes, lambda of: predictor(estimate(of)))
    predict = predictor(model)
    predicted = predict(columns)[0]
    rounding = cost.endswith("_bytes") and bool(
        (np.abs(predicted - columns[cost]) <= ALIGNMENT_BYTES).all()
    )
    found = Fit(
        cost=cost,
        law=str(model.law),
        coefficients=model.constants(),
        runs=len(runs),
        cells=_cells(columns, LENGTH_AND_BATCH),
        predict=lambda point: _interval(
            predict({name: np.array([float(point[name])]) for name in LENGTH_AND_BATCH}),
            validation.margin({name: float(point[name]) for name in axes if name in point}),
        ),
        interpolation=validation.interpolation,
        extrapolation=validation.extrapolation,
        weak=_weakness(validation, limit, _unvaried(columns, LENGTH_AND_BATCH)),
        exact=rounding,
        axes=LENGTH_AND_BATCH,
    )
    return found, Noise(model.deviation, model.freedom, "residual")


def _fit_total(runs: pd.DataFrame, cost: str) -> tuple[Fit, Noise]:
    """Return the fit of the total, put together from its parts, and its noise; raises TooFewCellsError."""
    missing = [name for name in PARTS if name not in runs]
    if missing:
        raise TooFewCellsError(ColumnsMissing(tuple(missing)))
    runs = runs.dropna(subset=[name for name in PARTS if name != "epochs"])
    columns = _columns(runs, PARTS)
    total = Total.of(columns)
    validation = cross_validate(columns, cost, REQUIRED_AXES, lambda of: Total.of(of).predict)
    errors = np.log(total.predict(columns)[0] / columns[cost])
    cells = _cells(columns, REQUIRED_AXES)
    freedom = max(cells - total.step.law.constants - 1, 1)

    def predict(point: Mapping[str, Any]) -> Interval:
        at = _run_at(point, columns)
        margin = validation.margin({name: float(at[name][0]) for name in REQUIRED_AXES})
        return _interval(total.predict(at), margin)

    found = Fit(
        cost=cost,
        law=f"{LAW}; step(B, S) = {total.step.law}; evaluation(S) = {total.evaluation.law}",
        coefficients=total.constants(),
        runs=len(runs),
        cells=cells,
        predict=predict,
        interpolation=validation.interpolation,
        extrapolation=validation.extrapolation,
        weak=_weakness(validation, WEAK_TIME, _unvaried(columns, LENGTH_AND_BATCH)),
        axes=(*REQUIRED_AXES, "num_train_epochs"),
    )
    deviation = float(np.sqrt((errors**2).sum() / freedom * cells / len(errors)))
    return found, Noise(deviation, freedom, "residual")


def _run_at(point: Mapping[str, Any], runs: Columns) -> Columns:
    """Return the columns of a run at a point; what the point leaves out is as in the runs.

    `epochs`, `examples_per_step`, `examples_per_epoch`, `optimizer_steps`, `eval_documents` and
    `checkpoints` may be left out.
    """
    at = {name: float(point[name]) for name in REQUIRED_AXES}
    batch = at["per_device_train_batch_size"]
    accumulated = runs["examples_per_step"][0] / runs["per_device_train_batch_size"][0]
    at["examples_per_step"] = float(point.get("examples_per_step", batch * accumulated))
    dropped = (runs["examples_per_epoch"] < runs["train_size"]).any()  # what makes no full batch
    an_epoch = at["train_size"] // batch * batch if dropped else at["train_size"]
    at["examples_per_epoch"] = float(point.get("examples_per_epoch", an_epoch))
    epochs = float(point.get("epochs", runs["epochs"].max()))
    steps = runs["optimizer_steps"].max()  # the same in all runs if `max_steps` decides
    if not np.isnan(epochs):
        steps = math.ceil(epochs * math.ceil(at["examples_per_epoch"] / at["examples_per_step"]))
    at["optimizer_steps"] = float(point.get("optimizer_steps", steps))
    given = [name for name in ("eval_documents", "checkpoints") if name in point]
    at |= {name: float(point[name]) for name in given}
    return {name: np.array([value]) for name, value in at.items()}


def _columns(runs: pd.DataFrame, names: Sequence[str]) -> Columns:
    return {name: runs[name].to_numpy(dtype=float) for name in names}


def _cells(runs: Columns, axes: Sequence[str]) -> int:
    return len(cells_of([runs[axis] for axis in axes])[0])


def _unvaried(runs: Columns, axes: Sequence[str]) -> list[str]:
    return [axis for axis in axes if len(np.unique(runs[axis])) == 1]


def _interval(predicted: tuple[Numbers, Numbers], margin: float) -> Interval:
    """Return a cost with its interval, no narrower than the errors that were seen on held-out cells."""
    value = float(predicted[0][0])
    half = max(float(predicted[1][0]), margin)
    return Interval(value, float(value * np.exp(-half)), float(value * np.exp(half)))


def _weakness(
    validation: Validation, limit: float, unvaried: Sequence[str]
) -> tuple[Weakness, ...]:
    """Return the checks that a fit failed."""
    tested = [of for of in (validation.interpolation, validation.extrapolation) if of]
    found: list[Weakness] = [
        ErrorAboveThreshold(of.kind, of.median_error, limit)
        for of in tested
        if of.median_error > limit
    ]
    if not tested:
        found.append(NoneHeldOut())
    return (*found, *map(OneValueOf, unvaried))


def slope_per_sample(found: Fit, length: int) -> Interval:
    """Return the bytes that one more example of a batch takes at a length, if large batches set the peak.

    From a fit of memory; divided by the length they are the bytes per token. The ends add up those of the
    coefficients, so the interval is no narrower than 95 %.
    """
    powers = {"mB": 1, "m1": length, "m2": length**2}
    parts = [(found.coefficients[n], p) for n, p in powers.items() if n in found.coefficients]
    return Interval(
        *(float(sum(getattr(part, end) * power for part, power in parts)) for end in _ENDS)
    )


def has_slope(found: Fit, point: Mapping[str, Any]) -> bool:
    """Return whether the piece of a memory law that `slope_per_sample` is of sets the peak at a point."""
    length, batch = (float(point[name]) for name in LENGTH_AND_BATCH)
    terms = {"m0": 1.0, "mB": batch, "m1": batch * length, "m2": batch * length**2}
    known = {name: found.coefficients[name].value for name in terms if name in found.coefficients}
    own = sum(value * terms[name] for name, value in known.items())
    return math.isclose(own, found.predict(point).value, rel_tol=1e-9)


_ENDS = ("value", "low", "high")
