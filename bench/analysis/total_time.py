"""Total time: what a whole fine-tune takes, put together from what its phases take.

    total = load + warm-up + r * steps * step time(B, S) + documents evaluated * (e0 + eS*S) + saves * save

`steps` counts full steps; the last of an epoch, with fewer documents, counts as the share of one that the
law of step time gives it. r is the mean step over the median one with what passes between steps, the
warm-up is what the first steps take beyond it; both are fitted to the training phases. Errors of the parts
are taken as independent and added in quadrature; what that misses shows in the cells held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bench.analysis.held_out import Columns
from bench.analysis.laws import Interval
from bench.analysis.regression import (
    Law,
    Model,
    Numbers,
    Sample,
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
# What the table must have for a total to be put together.
PARTS = (
    "max_length",
    "per_device_train_batch_size",
    "train_size",
    "documents_a_step",
    "epochs",
    "optimizer_steps",
    "eval_documents",
    "step_median_s",
    "train_s",
    "evaluation_s",
    "save_s",
    "saves",
    "load_s",
    "total_s",
)
LAW = "load + warm_up + r*steps*step(B, S) + eval_documents*evaluation(S) + saves*save"


@dataclasses.dataclass(frozen=True)
class Constant:
    """A part that is the same in every run: its mean and half of one run's 95 % interval, in seconds."""

    mean: float
    half: float

    @classmethod
    def of(cls, seconds: Numbers) -> Constant:
        """Return the constant of a part's seconds, one entry a run."""
        freedom = len(seconds) - 1
        half = student(freedom) * seconds.std(ddof=1) * np.sqrt(1 + 1 / len(seconds))
        return cls(float(seconds.mean()), float(half))

    @property
    def interval(self) -> Interval:
        """Return the constant with one run's interval, no less than nothing."""
        return Interval(self.mean, max(self.mean - self.half, 0.0), self.mean + self.half)


@dataclasses.dataclass(frozen=True)
class Count:
    """How often something happens in a run: a constant, and so often a step."""

    constant: float
    a_step: float

    @classmethod
    def of(cls, steps: Numbers, counts: Numbers) -> Count:
        """Return the count of runs; a constant where it is the same in all of them."""
        if np.ptp(counts) == 0 or np.ptp(steps) == 0:
            return cls(float(counts.mean()), 0.0)
        a_step, constant = np.polyfit(steps, counts, 1)
        return cls(float(constant), float(a_step))

    def at(self, steps: Numbers) -> Numbers:
        """Return the count at these numbers of steps."""
        return self.constant + self.a_step * steps


@dataclasses.dataclass(frozen=True)
class Training:
    """The training phases: `ratio` times the steps' own time, and `warm_up` seconds."""

    ratio: float
    warm_up: float
    covariance: Numbers
    deviation: float
    freedom: int

    @classmethod
    def of(cls, work: Numbers, seconds: Numbers, cells: int) -> Training:
        """Return the law of the training's seconds against what its steps took at the median."""
        columns = np.stack([work, np.ones_like(work)], axis=1)
        bounded = np.zeros(2, dtype=bool)
        found = least_squares(columns, seconds, np.ones((1, len(seconds))), bounded)[0]
        residuals = columns @ found / seconds - 1
        rows = columns / seconds[:, None]
        freedom = max(cells - 2, 1)
        deviation = float(np.sqrt(residuals @ residuals / max(len(seconds) - 2, 1)))
        covariance = np.asarray(np.linalg.pinv(rows.T @ rows), dtype=np.float64)
        return cls(float(found[0]), float(found[1]), covariance, deviation, freedom)

    def seconds(self, work: Numbers) -> Numbers:
        """Return the seconds that steps of so much time become."""
        return self.ratio * work + self.warm_up

    def half_width(self, work: Numbers) -> Numbers:
        """Return half the 95 % interval at so much work, as a share."""
        rows = np.stack([work, np.ones_like(work)], axis=1) / self.seconds(work)[:, None]
        leverage = np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        return np.asarray(student(self.freedom) * self.deviation * np.sqrt(1 + leverage))

    def constants(self) -> dict[str, Interval]:
        """Return `r` and the warm-up's seconds."""
        errors = self.deviation * np.sqrt(np.diag(self.covariance)) * student(self.freedom)
        values = {"r": self.ratio, "warm_up": self.warm_up}
        return {
            name: Interval(value, max(value - float(error), 0.0), value + float(error))
            for (name, value), error in zip(values.items(), errors, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Total:
    """A fitted total, by its parts."""

    step: Model
    training: Training
    evaluation: Model
    evaluated: Count
    load: Constant
    save: Constant
    saved: Count

    @classmethod
    def of(cls, runs: Columns) -> Total:
        """Return the total fitted to runs; raises TooFewCellsError where there is no law of the step time."""
        length, batch = runs["max_length"], runs["per_device_train_batch_size"]
        step = fit(STEP_LAWS, Sample.of_runs(length, batch, runs["step_median_s"]))
        work = full_steps(step, runs) * runs["step_median_s"]
        cells = len(cells_of([length, batch, runs["train_size"]])[0])
        documents = runs["eval_documents"]
        evaluation = Sample.of_runs(length, batch, runs["evaluation_s"] / documents)
        return cls(
            step=step,
            training=Training.of(work, runs["train_s"], cells),
            evaluation=fit(_EVALUATION_LAWS, evaluation),
            evaluated=Count.of(runs["optimizer_steps"], documents),
            load=Constant.of(runs["load_s"]),
            save=Constant.of(runs["save_s"] / np.maximum(runs["saves"], 1)),
            saved=Count.of(runs["optimizer_steps"], np.maximum(runs["saves"], 1)),
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
        documents = points.get("eval_documents", self.evaluated.at(points["optimizer_steps"]))
        evaluation = documents * self.evaluation.cost(length, batch)
        saves = points.get("saves", self.saved.at(points["optimizer_steps"]))
        return {
            "load": (self.load.mean * ones, self.load.half * ones),
            "train": (train, train * np.expm1(spread)),
            "evaluation": (
                evaluation,
                evaluation * np.expm1(self.evaluation.half_width(length, batch)),
            ),
            "save": (self.save.mean * saves, self.save.half * saves),
        }

    def constants(self) -> Mapping[str, Interval]:
        """Return the constants of every part, in seconds."""
        return {
            **self.step.constants(),
            **self.training.constants(),
            **self.evaluation.constants(),
            "load": self.load.interval,
            "save": self.save.interval,
        }


def steps_an_epoch(train_size: Numbers, documents_a_step: Numbers) -> Numbers:
    """Return the optimizer steps of an epoch: the last may have fewer documents."""
    return np.ceil(train_size / documents_a_step)


def full_steps(step: Model, points: Columns) -> Numbers:
    """Return the steps of a run as so many full ones, by the law of the step time."""
    length, batch = points["max_length"], points["per_device_train_batch_size"]
    documents = points["documents_a_step"]
    rest = np.mod(points["train_size"], documents)
    share = step.cost(length, batch * rest / documents) / step.cost(length, batch)
    whole = np.floor(points["train_size"] / documents) + np.where(rest > 0, share, 0)
    return np.asarray(
        points["optimizer_steps"] * whole / steps_an_epoch(points["train_size"], documents)
    )
