"""Total time: the seconds of a whole fine-tune, put together from those of its phases.

    total = load + warm-up + r * steps * step time(B, S) + examples evaluated * (e0 + eS*S)
            + last save + checkpoints * checkpoint

`steps` counts full steps; the last of an epoch, with fewer examples, counts as the share of one that the
law of step time gives it. r is the mean step, with the time between steps, over the median one; the
warm-up is the time that the first steps take beyond it; both are fitted to the training phases. Runs of one cell
share what is the cell's own: lines are fitted to the means of cells. Errors of the parts are taken as
independent and added in quadrature; what that misses shows in the cells held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ftbench.analysis.fits.held_out import Columns
from ftbench.analysis.fits.laws import Interval
from ftbench.analysis.fits.regression import (
    SPARE_CELLS,
    CellMeans,
    Law,
    Model,
    Numbers,
    cells_of,
    fit,
    least_squares,
    student,
)

STEP_LAWS = (
    Law("t", (("1", "B*S"),)),
    Law("t", (("1", "B*S", "B*S^2"),)),
    Law("t", (("1",), ("1", "B*S"))),  # small batches leave the device waiting: a floor
    Law("t", (("1",), ("1", "B*S", "B*S^2"))),
    # Small cells keep within a cache, large ones pay more a token: the second line begins below zero.
    Law("t", (("1", "B*S"), ("1", "B*S")), frozenset(["1"])),
)
# In the proportional law a single length is enough.
_EVALUATION_LAWS = (
    Law("e", (("S",),)),
    Law("e", (("1", "S"),)),
    Law("e", (("1", "S", "S^2"),)),
)
_ENOUGH_LENGTHS = max(law.constants for law in _EVALUATION_LAWS) + SPARE_CELLS
# What the table must have for a total to be put together.
PARTS = (
    "max_length",
    "per_device_train_batch_size",
    "train_size",
    "examples_per_step",
    "epochs",
    "optimizer_steps",
    "examples_per_epoch",
    "eval_documents",
    "step_median_s",
    "train_s",
    "evaluation_s",
    "save_s",
    "checkpoints",
    "load_s",
    "total_s",
)
LAW = (
    "load + warm_up + r*steps*step(B, S) + eval_documents*evaluation(S) + last_save"
    " + checkpoints*checkpoint"
)


@dataclasses.dataclass(frozen=True)
class Constant:
    """A part that is the same in every run: its mean and half of one run's 95 % interval, in seconds."""

    mean: float
    half: float

    @classmethod
    def of(cls, seconds: Numbers) -> Constant:
        """Return the constant of a part's seconds, one entry per run."""
        freedom = len(seconds) - 1
        half = student(freedom) * seconds.std(ddof=1) * np.sqrt(1 + 1 / len(seconds))
        return cls(float(seconds.mean()), float(half))

    @property
    def interval(self) -> Interval:
        """Return the constant with one run's interval, no less than nothing."""
        return Interval(self.mean, max(self.mean - self.half, 0.0), self.mean + self.half)


@dataclasses.dataclass(frozen=True)
class Count:
    """How often something happens in a run: a constant, and a number per step."""

    constant: float
    a_step: float

    @classmethod
    def of(cls, steps: Numbers, counts: Numbers) -> Count:
        """Return the count of runs; a constant if it is the same in all of them."""
        if np.ptp(counts) == 0 or np.ptp(steps) == 0:
            return cls(float(counts.mean()), 0.0)
        a_step, constant = np.polyfit(steps, counts, 1)
        return cls(float(constant), float(a_step))

    def at(self, steps: Numbers) -> Numbers:
        """Return the count at these numbers of steps."""
        return self.constant + self.a_step * steps


@dataclasses.dataclass(frozen=True)
class Line:
    """Seconds per unit of something, and a constant; neither is negative.

    `deviation` is the standard deviation of a cell's residual and `run_deviation` that of one run about
    its cell's mean, beyond what `deviation` has of it; both are shares of the seconds.
    """

    slope: float
    constant: float
    covariance: Numbers
    deviation: float
    run_deviation: float
    freedom: int

    @classmethod
    def of(cls, amount: Numbers, seconds: Numbers, cell: NDArray[np.intp]) -> Line:
        """Return the line through the means of cells; `cell` has the number of each run's."""
        runs = np.bincount(cell)
        mean = np.bincount(cell, weights=seconds) / runs
        columns = np.stack([np.bincount(cell, weights=amount) / runs, np.ones_like(mean)], axis=1)
        bounded = np.zeros(2, dtype=bool)
        found = least_squares(columns, mean, np.ones((1, len(mean))), bounded)[0]
        residuals = columns @ found / mean - 1
        rows = columns / mean[:, None]
        freedom = max(len(mean) - 2, 1)
        spare = len(seconds) - len(mean)
        spread = ((seconds / mean[cell] - 1) ** 2).sum() / max(spare, 1)
        return cls(
            slope=float(found[0]),
            constant=float(found[1]),
            covariance=np.asarray(np.linalg.pinv(rows.T @ rows), dtype=np.float64),
            deviation=float(np.sqrt(residuals @ residuals / freedom)),
            run_deviation=float(np.sqrt(spread * np.mean(1 - 1 / runs))),
            freedom=freedom,
        )

    def seconds(self, amount: Numbers) -> Numbers:
        """Return the seconds of so much."""
        return self.slope * amount + self.constant

    def half_width(self, amount: Numbers) -> Numbers:
        """Return half the 95 % interval of one more run at so much, as a share."""
        rows = np.stack([amount, np.ones_like(amount)], axis=1) / self.seconds(amount)[:, None]
        leverage = np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        variance = self.deviation**2 * (1 + leverage) + self.run_deviation**2
        return np.asarray(student(self.freedom) * np.sqrt(variance))

    def constants(self, slope: str, constant: str) -> dict[str, Interval]:
        """Return the two constants under these names."""
        errors = self.deviation * np.sqrt(np.diag(self.covariance)) * student(self.freedom)
        values = {slope: self.slope, constant: self.constant}
        return {
            name: Interval(value, max(value - float(error), 0.0), value + float(error))
            for (name, value), error in zip(values.items(), errors, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Alike:
    """Saving if all runs have equally many checkpoints: the last save's share of the time is not known.

    A checkpoint has the optimizer's state beside the model, so the last save, with reading the best model
    back, costs one of them at most; at least it costs nothing.
    """

    checkpoints: float
    seconds: Constant

    def at(self, checkpoints: Numbers) -> tuple[Numbers, Numbers]:
        """Return the seconds of so many checkpoints and the last save, and half their interval."""
        mean, own = self.seconds.mean, self.checkpoints
        shared = mean * (checkpoints + 1) / (own + 1)  # the last save costs as much as one of them
        apart = (
            mean * checkpoints / own if own else mean * (1 + 3 * checkpoints)
        )  # weights, moments
        factor = np.maximum((shared + apart) / 2 / mean, 1.0) if mean else np.ones_like(checkpoints)
        return (shared + apart) / 2, np.abs(apart - shared) / 2 + self.seconds.half * factor

    def constants(self) -> dict[str, Interval]:
        """Return the seconds of all saves of a run."""
        return {"save": self.seconds.interval}


@dataclasses.dataclass(frozen=True)
class Apart:
    """Saving if runs differ in their checkpoints."""

    line: Line

    def at(self, checkpoints: Numbers) -> tuple[Numbers, Numbers]:
        """Return the seconds of so many checkpoints and the last save, and half their interval."""
        seconds = self.line.seconds(checkpoints)
        return seconds, seconds * self.line.half_width(checkpoints)

    def constants(self) -> dict[str, Interval]:
        """Return the seconds of a checkpoint and of the last save."""
        return self.line.constants("checkpoint", "last_save")


@dataclasses.dataclass(frozen=True)
class Total:
    """A fitted total, by its parts."""

    step: Model
    training: Line
    evaluation: Model
    evaluated: Count
    load: Constant
    saving: Alike | Apart
    saved: Count

    @classmethod
    def of(cls, runs: Columns) -> Total:
        """Return the total fitted to runs; raises TooFewCellsError if there is no law of the step time."""
        length, batch = runs["max_length"], runs["per_device_train_batch_size"]
        step = fit(STEP_LAWS, CellMeans.of_runs(length, batch, runs["step_median_s"]))
        work = full_steps(step, runs) * runs["step_median_s"]
        _, cell = cells_of([length, batch, runs["train_size"]])
        examples, checkpoints = runs["eval_documents"], runs["checkpoints"]
        # Evaluation has a batch size of its own: if there are enough lengths for a law, each is one cell.
        alike = len(np.unique(length)) >= _ENOUGH_LENGTHS
        evaluated_in = np.ones_like(batch) if alike else batch
        evaluation = CellMeans.of_runs(length, evaluated_in, runs["evaluation_s"] / examples)
        return cls(
            step=step,
            training=Line.of(work, runs["train_s"], cell),
            evaluation=fit(_EVALUATION_LAWS, evaluation),
            evaluated=Count.of(runs["optimizer_steps"], examples),
            load=Constant.of(runs["load_s"]),
            saving=Alike(float(checkpoints[0]), Constant.of(runs["save_s"]))
            if np.ptp(checkpoints) == 0
            else Apart(Line.of(checkpoints, runs["save_s"], cell)),
            saved=Count.of(runs["optimizer_steps"], checkpoints),
        )

    def predict(self, points: Columns) -> tuple[Numbers, Numbers]:
        """Return the seconds at points, and half their 95 % intervals as differences of logarithms."""
        parts = self.parts(points)
        seconds = np.asarray(sum(value for value, _ in parts.values()))
        half = np.sqrt(sum(width**2 for _, width in parts.values()))
        return seconds, np.log1p(half / seconds)

    def parts(self, points: Columns) -> dict[str, tuple[Numbers, Numbers]]:
        """Return the seconds of each part at points, and half their 95 % intervals, in seconds."""
        length, batch = points["max_length"], points["per_device_train_batch_size"]
        ones = np.ones_like(length)
        work = full_steps(self.step, points) * self.step.cost(length, batch)
        train = self.training.seconds(work)
        spread = np.hypot(self.step.half_width(length, batch), self.training.half_width(work))
        examples = points.get("eval_documents", self.evaluated.at(points["optimizer_steps"]))
        evaluation = examples * self.evaluation.cost(length, batch)
        checkpoints = points.get("checkpoints", self.saved.at(points["optimizer_steps"]))
        return {
            "load": (self.load.mean * ones, self.load.half * ones),
            "train": (train, train * np.expm1(spread)),
            "evaluation": (
                evaluation,
                evaluation * np.expm1(self.evaluation.half_width(length, batch)),
            ),
            "save": self.saving.at(checkpoints),
        }

    def constants(self) -> Mapping[str, Interval]:
        """Return the constants of every part, in seconds."""
        return {
            **self.step.constants(),
            **self.training.constants("r", "warm_up"),
            **self.evaluation.constants(),
            "load": self.load.interval,
            **self.saving.constants(),
        }


def full_steps(step: Model, points: Columns) -> Numbers:
    """Return the steps of a run as so many full ones, by the law of the step time."""
    length, batch = points["max_length"], points["per_device_train_batch_size"]
    examples, an_epoch = points["examples_per_step"], points["examples_per_epoch"]
    rest = np.mod(an_epoch, examples)
    share = step.cost(length, batch * rest / examples) / step.cost(length, batch)
    whole = np.floor(an_epoch / examples) + np.where(rest > 0, share, 0)
    return np.asarray(points["optimizer_steps"] * whole / np.ceil(an_epoch / examples))
