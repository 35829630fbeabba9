"""Roofline: the time of a complete job on a card that it was not run on, as bounds. Pure.

The model of kernels (`ftbench.estimation.run_time`) gives a narrower interval, if a trace has the shapes of
kernels and the run is on one card; the roofline is its floor, and answers for the rest.

The job's work is known: exact FLOPs, the bytes that operators move, the kernels that are started. What is
not known is how near a card comes to its peaks. So this is an interval, not a measurement:

    low     max(FLOPs / peak FLOP/s, compulsory bytes / peak bandwidth): no software can be faster
    value   products at the usual share of the peak, all else at the usual share of the bandwidth, one
            after the other as eager PyTorch does; or what the host takes to start it, if that is longer
    high    the least shares that are found, and nothing overlaps

The shares are assumptions, each with its reason beside it; tests/unit/estimation/test_roofline.py checks the
interval on published times of fine-tunes. See Williams, Waterman and Patterson, Roofline (CACM 52(4), 2009).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ftbench.analysis.fits.laws import Interval
from ftbench.estimation.reasons import CardSpeedUnknown, RateUnknown
from ftbench.plan.cell import Cell
from ftbench.plan.gpus import Dtype, Gpu
from ftbench.plan.schedule import Schedule
from ftbench.records.prediction import CellWork, PassWork

End = Literal["slow", "usual"]


@dataclasses.dataclass(frozen=True)
class Range:
    """A share or a rate that is not known: the slow end that is found, and the usual value.

    At the fast end stands the peak itself.
    """

    slow: float
    usual: float

    def at(self, end: End) -> float:
        """Return one of the two."""
        return self.slow if end == "slow" else self.usual


# Shares of the peak FLOP/s that matrix products reach.
# Without tensor cores large products come near the peak on cards with power to spare; those with a power limit
# of 70 W (T4, L4) halve their clocks under such load.
PLAIN_PRODUCTS = Range(0.35, 0.65)
# With tensor cores the best shape reaches 0.6 to 0.9 (a survey of many cards, "maximum achievable matmul FLOPS":
# https://github.com/stas00/ml-engineering/tree/master/compute/accelerator). An encoder's products are
# smaller: large models train at 0.2 to 0.55 over all (PaLM, arXiv 2204.02311, table 3).
TENSOR_PRODUCTS = Range(0.2, 0.45)
# Share of the peak bandwidth. Streams reach 0.75 to 0.93; strided and small operands less (Ivanov et al.,
# arXiv 2007.00072, find element-wise and normalising operators of an encoder limited by it, well below its peak).
BANDWIDTH = Range(0.45, 0.8)
# Seconds of host time per operator: PyTorch's dispatch, autograd and the launch. 5 to 25 µs are reported, and an
# older processor or a Python optimizer takes the upper end.
LAUNCH_S = Range(25e-6, 8e-6)
# Seconds per optimizer step beside its operators: the Trainer's callbacks, collating a batch. An assumption.
STEP_S = Range(10e-3, 2e-3)
# Once per run: starting a process, importing, loading the model, the card's context. An assumption.
START_S = Range(60.0, 15.0)
# Bytes per second to disk for checkpoints: a slow network volume, and one that costs nothing. An assumption.
DISK_BYTES_PER_S = Range(100e6, 1e9)


@dataclasses.dataclass(frozen=True)
class Rates:
    """The peak rates of a device: FLOP/s of products in one type, and bytes/s of its memory.

    `full_eval` has the rates of evaluations if the settings ask for another type there.
    """

    name: str
    dtype: Dtype
    peak_flops: float
    bandwidth_bytes_per_s: float
    full_eval: Rates | None = None

    @property
    def evaluating(self) -> Rates:
        """Return the rates of evaluations."""
        return self.full_eval or self


_HALF: Mapping[str, Dtype] = {"bfloat16": "bf16", "float16": "fp16"}


def dtype_of(cell: Cell, gpu: Gpu) -> Dtype:
    """Return the type that products are computed in, as the catalogue of cards names it.

    torch keeps float32 products in full precision unless TF32 is asked for; a card without it has none.
    """
    if cell.product_dtype in _HALF:
        return _HALF[cell.product_dtype]
    return "tf32" if cell.settings.get("tf32") and "tf32" in gpu.peak_flops else "fp32"


def rates_of(gpu: Gpu, cell: Cell) -> Rates | CardSpeedUnknown | RateUnknown:
    """Return a card's rates for a cell from the catalogue, or why there are none."""
    if gpu.bandwidth_bytes_per_s is None or not gpu.peak_flops:
        return CardSpeedUnknown(gpu.name)
    settings = cell.settings
    dtype = dtype_of(cell, gpu)
    whole: Dtype = (
        "bf16"
        if settings.get("bf16_full_eval")
        else "fp16"
        if settings.get("fp16_full_eval")
        else dtype
    )
    missing = next((one for one in (dtype, whole) if one not in gpu.peak_flops), None)
    if missing is not None:
        return RateUnknown(gpu.name, missing, tuple(gpu.peak_flops))
    name, peaks, bandwidth = gpu.name, gpu.peak_flops, gpu.bandwidth_bytes_per_s
    other = Rates(name, whole, peaks[whole], bandwidth) if whole != dtype else None
    return Rates(name, dtype, peaks[dtype], bandwidth, other)


def job_seconds(
    job: Schedule, work: CellWork, rates: Rates, *, least: CellWork | None = None
) -> Interval:
    """Return the seconds of a job on a device with these rates: the roofline interval.

    `least` is a lower bound of the work, if it varies.
    """
    low = least_job_seconds(job, least or work, rates)
    return Interval(_seconds(job, work, rates, "usual"), low, _seconds(job, work, rates, "slow"))


def step_seconds(work: PassWork, rates: Rates) -> Interval:
    """Return the seconds of one step alone, without what the Trainer adds: the roofline interval."""
    low = max(work.flops / rates.peak_flops, work.compulsory_bytes / rates.bandwidth_bytes_per_s)
    usual, slow = (_pass_seconds(work, 1, 1, rates, end) for end in ("usual", "slow"))
    return Interval(usual, low, slow)


def flops_of(job: Schedule, work: CellWork) -> float:
    """Return the FLOPs of a whole job: they are proportional to examples."""
    return sum(_flops(job, work))


def _flops(job: Schedule, work: CellWork) -> tuple[float, float]:
    """Return the FLOPs of training and of all evaluations."""
    trained = work.step.flops * job.documents / work.step.documents
    evaluated = work.evaluation.flops * job.eval_documents / work.evaluation.documents
    return trained, evaluated * job.evaluations


def least_job_seconds(job: Schedule, work: CellWork, rates: Rates) -> float:
    """Return the seconds that no software can undercut."""
    batches = job.evaluations * job.eval_batches
    moved = work.step.compulsory_bytes * job.steps + work.evaluation.compulsory_bytes * batches
    trained, evaluated = _flops(job, work)
    computing = trained / rates.peak_flops + evaluated / rates.evaluating.peak_flops
    return max(computing, moved / rates.bandwidth_bytes_per_s)


def _seconds(job: Schedule, work: CellWork, rates: Rates, end: End) -> float:
    """Return the seconds of a job at one end of the shares."""
    steps = job.documents / work.step.documents
    trained = _pass_seconds(work.step, steps, job.steps, rates, end)
    examples = job.eval_documents * job.evaluations / work.evaluation.documents
    batches = job.eval_batches * job.evaluations / work.evaluation.batches
    evaluated = _pass_seconds(work.evaluation, examples, batches, rates.evaluating, end)
    return trained + evaluated + _seconds_beside(job, work, end)


def seconds_beside(job: Schedule, work: CellWork) -> Interval:
    """Return the seconds of a run beside its kernels: start, saving, and what the Trainer adds to a step.

    At the fast end they are nothing.
    """
    return Interval(_seconds_beside(job, work, "usual"), 0.0, _seconds_beside(job, work, "slow"))


def _seconds_beside(job: Schedule, work: CellWork, end: End) -> float:
    saved = (job.checkpoints + 1) * work.checkpoint_bytes / DISK_BYTES_PER_S.at(end)
    return saved + START_S.at(end) + job.steps * STEP_S.at(end)


def _pass_seconds(
    work: PassWork, by_examples: float, times: float, rates: Rates, end: End
) -> float:
    """Return the seconds of passes: FLOPs go with examples, bytes and kernels at most with passes."""
    products = TENSOR_PRODUCTS if rates.dtype != "fp32" else PLAIN_PRODUCTS
    bandwidth = rates.bandwidth_bytes_per_s * BANDWIDTH.at(end)
    computing = work.flops * by_examples / (rates.peak_flops * products.at(end))
    moving = work.product_bytes * times / bandwidth
    rest = work.other_bytes * times / bandwidth
    starting = work.kernels * times * LAUNCH_S.at(end)
    if end == "slow":
        return computing + moving + rest + starting
    return max(max(computing, moving) + rest, starting)
