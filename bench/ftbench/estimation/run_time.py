"""Run time: the seconds of a whole fine-tune on a card that was not measured, from the time of its kernels. Pure.

A step and an evaluation are those of `ftbench.estimation.kernel_time`; what the Trainer, the disk and the start
add are the roofline's assumptions. The low end is at least the roofline's.
"""

from __future__ import annotations

import dataclasses

from ftbench.analysis.fits.laws import Interval
from ftbench.estimation.card_speed import CardSpeed
from ftbench.estimation.kernel_time import Step, Steps
from ftbench.estimation.roofline import Rates, least_job_seconds, seconds_beside
from ftbench.estimation.time_constants import load_interval_factors, load_time_constants
from ftbench.estimation.time_interval import Gap, factor_of, gaps_of
from ftbench.plan.gpus import Dtype
from ftbench.plan.schedule import Schedule
from ftbench.records.prediction import CellWork


@dataclasses.dataclass(frozen=True)
class RunOnCard:
    """A run on one card: its counts, its work, the rates and the data sheet of the card.

    `least` is a lower bound of the work, if it varies. `old` is for torch older than 1.12, `loops` for an optimizer
    that loops over parameters.
    """

    job: Schedule
    work: CellWork
    rates: Rates
    card: CardSpeed
    least: CellWork | None = None
    old: bool = False
    loops: bool = False


@dataclasses.dataclass(frozen=True)
class RunTime:
    """The seconds of a run, the factor up and down of its kernels' time, and why that is wider than usual.

    `host_share` is the host's time in parts of a step's, `beside_share` that of start and checkpoints in parts of
    the run's.
    """

    seconds: Interval
    factor: float
    gaps: tuple[Gap, ...]
    host_share: float
    beside_share: float


def has_kernels(work: CellWork) -> bool:
    """Return whether a work has its kernels by shape, without which there is only the roofline."""
    return bool(work.step.by_kernel.products) and bool(work.evaluation.by_kernel.products)


def run_times(runs: list[RunOnCard]) -> list[RunTime]:
    """Return the time of every run; thousands together take as long as their kernels, not as their number."""
    steps = [_step(run, run.rates.dtype) for run in runs]
    evaluations = [_evaluation(run) for run in runs]
    constants, factors = load_time_constants(), load_interval_factors()
    stepping, evaluating = (Steps(one).seconds(constants) for one in (steps, evaluations))
    at_least = stepping
    if any(run.least is not None for run in runs):
        least = [_step(run, run.rates.dtype, least=True) for run in runs]
        at_least = Steps(least).seconds(constants)
    shares = stepping.host_share.tolist()
    found = []
    for i, run in enumerate(runs):
        gaps = gaps_of(steps[i], run.rates.dtype, host_share=shares[i])
        factor = factor_of(gaps, factors)
        passes = run.job.documents / run.work.step.documents
        of_evaluation = run.job.evaluations * run.job.eval_documents / run.work.evaluation.documents
        evaluated = float(evaluating.total[i]) * of_evaluation
        value = float(stepping.total[i]) * passes + evaluated
        low = (float(at_least.total[i]) * passes + evaluated) / factor
        beside = seconds_beside(run.job, run.work)
        floor = least_job_seconds(run.job, run.least or run.work, run.rates)
        low = max(low + beside.low, floor)
        seconds = Interval(
            max(value + beside.value, low), low, max(value * factor + beside.high, low)
        )
        share = beside.value / seconds.value
        found.append(RunTime(seconds, factor, gaps, host_share=shares[i], beside_share=share))
    return found


def _step(run: RunOnCard, dtype: Dtype, *, least: bool = False) -> Step:
    work = run.least if least and run.least is not None else run.work
    return Step(work.step, run.card, _of_floats(dtype), run.old, run.loops)


def _evaluation(run: RunOnCard) -> Step:
    dtype = run.rates.evaluating.dtype
    return Step(run.work.evaluation, run.card, _of_floats(dtype), run.old, waits=False)


def _of_floats(dtype: Dtype) -> Dtype:
    """Return the type that float32 products are computed in: TF32 only if it was asked for."""
    return "tf32" if dtype == "tf32" else "fp32"
