"""Readings: the memory, the time and the work of a cell's phases, steps and epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ftbench.base.frozen import FrozenModel
from ftbench.records.figures import READINGS

# "save" is the writing of checkpoints, the loading of the best one, and the writing of the final model.
PhaseName = Literal["load", "first_steps", "train", "evaluation", "save"]
PHASES: tuple[PhaseName, ...] = ("load", "first_steps", "train", "evaluation", "save")

# The steps that are a phase of their own: the optimizer's state is created in the first, and
# caches are warm only after the second.
FIRST_STEPS = 2


class Memory(FrozenModel):
    """The readings of memory of one phase, or of the whole cell, in bytes.

    Peaks since the phase began, except `context_bytes`. `Measurement.sources` names the source of each.
    """

    peak_rss_bytes: int | None = Field(
        None, description="Resident set of the worker, from the kernel: bytes of RAM that it has."
    )
    peak_pss_bytes: int | None = Field(
        None,
        description="Proportional set of the worker's process tree, in bytes, sampled: shared memory is divided"
        " among those that share it.",
    )
    peak_cpu_tensors_bytes: int | None = Field(
        None,
        description="Bytes that torch's allocator gave to tensors on the CPU, in a two-step pass of its own.",
    )
    peak_allocated_bytes: int | None = Field(
        None, description="Bytes that tensors hold on the card, by torch's allocator."
    )
    peak_reserved_bytes: int | None = Field(
        None, description="Bytes that torch's allocator has taken from the card's driver."
    )
    peak_process_bytes: int | None = Field(
        None, description="Bytes of the card that belong to the worker, by NVML, sampled."
    )
    peak_device_bytes: int | None = Field(
        None, description="Bytes of the card that any process has, by NVML, sampled."
    )
    context_bytes: int | None = Field(
        None,
        description="Bytes that the driver takes for the process: peak process less peak reserved.",
    )

    # Readings of other meters, by their names in `figures.FIGURES`.
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, int | None]

    @model_validator(mode="after")
    def _readings_are_known(self) -> Self:
        known = {figure.reading for figure in READINGS}
        if unknown := sorted(set(self.__pydantic_extra__ or {}) - known):
            raise ValueError(f"no such reading of memory: {', '.join(unknown)}")
        return self

    def reading(self, name: str) -> int | None:
        """Return a reading by its name, in bytes; None if it is absent."""
        value: int | None = getattr(self, name, None)
        return value


def largest_readings(memories: Sequence[Memory]) -> Memory:
    """Return the largest value of each reading; a reading is absent if it is in none of them."""
    if len(memories) == 1:
        return memories[0]
    peaks: dict[str, int] = {}
    for memory in memories:
        for name, value in memory.model_dump(exclude_none=True).items():
            peaks[name] = max(value, peaks.get(name, value))
    return Memory(**peaks)


class Phase(FrozenModel):
    """One phase of a cell, summed over all its entries; sample and token counts only if it trains."""

    wall_s: float = Field(description="Seconds by the clock.")
    cpu_s: float = Field(description="Seconds of processor time, over all threads.")
    entries: int = Field(description="How often the cell was in this phase.")
    steps: int | None = Field(None, description="Optimizer steps.")
    samples: int | None = Field(None, description="Examples.")
    real_tokens: int | None = Field(None, description="Tokens of texts, without padding.")
    padded_tokens: int | None = Field(None, description="Tokens with padding.")
    data_wait_s: float | None = Field(
        None, description="Seconds in which training waited for its next batch."
    )
    energy_j: float | None = Field(None, description="Joules that the whole card used.")
    kernel_s: float | None = Field(
        None, description="The seconds of cpu_s in the kernel; absent in earlier records."
    )
    page_faults: int | None = Field(
        None, description="Minor page faults, which read nothing from the disk."
    )
    memory: Memory = Field(description="The readings of memory of this phase.")


class Epoch(FrozenModel):
    """Losses and scores of one epoch of training."""

    epoch: int = Field(description="The number of the epoch, from 1.")
    train_loss: float | None = Field(description="The mean loss of the epoch's training steps.")
    eval_loss: float | None = Field(description="The loss on the evaluation examples after it.")
    scores: dict[str, float] = Field(
        default_factory=dict, description="The scores of the evaluation after it, by name."
    )


class StepSummary(FrozenModel):
    """Statistics of the full-size steps after warm-up; the Parquet file has the time of every step.

    Rates are counts over all `samples` after warm-up, divided by their `seconds`.
    """

    count: int = Field(description="Steps that the statistics are of.")
    warmup_steps: int = Field(
        description="Steps that are left out: the first two, and later ones that are still unsteady."
    )
    median_s: float = Field(description="Seconds of the median step.")
    median_low_s: float = Field(
        description="The lower end of the median's 95 % interval, in seconds: a bootstrap over blocks of steps."
    )
    median_high_s: float = Field(description="The upper end of that interval, in seconds.")
    q1_s: float = Field(description="Seconds that a quarter of the steps stay below.")
    q3_s: float = Field(description="Seconds that three quarters of the steps stay below.")
    seconds: float = Field(description="Seconds of all steps after warm-up.")
    samples: int = Field(description="Training examples in these seconds.")
    data_wait_median_s: float = Field(
        description="Seconds that the median step waits for its batch."
    )
    min_s: float | None = Field(
        None, description="Seconds of the fastest step; absent in earlier records."
    )
    samples_per_s: float = Field(description="Training examples per second.")
    real_tokens_per_s: float = Field(description="Tokens of texts per second, without padding.")
    padded_tokens_per_s: float = Field(description="Tokens per second, with padding.")
    flops_per_s: float | None = Field(
        None, description="Floating-point operations per second that the model's training needs."
    )
    mfu: float | None = Field(
        None,
        description="flops_per_s as a share of the rate of a matrix product that was measured on the device.",
    )


class Load(FrozenModel):
    """How busy the machine was during the cell. A figure is None if the kernel does not count it."""

    average_start: float = Field(
        description="The kernel's load average over a minute, at the start: processes that run or wait."
    )
    average_end: float = Field(description="The same at the end.")
    others_cpu_share: float | None = Field(
        description="The share of all processors' time that other processes used."
    )
    steal_share: float | None = Field(
        description="The share of all processors' time that the hypervisor gave to other guests."
    )
    swapped_pages: int | None = Field(
        None,
        description="Pages that were swapped in or out on the machine, or those of the worker in swap at its end,"
        " whichever is more.",
    )
    throttle_events: int | None = Field(
        None, description="How often overheated processors, not cards, lowered their clock."
    )


class Sampling(FrozenModel):
    """How the sampled figures were taken, by a process beside the worker's."""

    period_s: float = Field(description="Seconds between two samples.")
    samples: int = Field(description="The number of samples.")
    cpu_s: float = Field(description="Seconds of processor time of the process that samples.")
    cpu_share: float = Field(
        description="Its share of one processor while the worker ran; it waits for the rest of cpu_s."
    )
    device_uuid: str | None = Field(None, description="The UUID of the card that was sampled.")
    growth: dict[str, float] = Field(
        default_factory=dict,
        description="For each sampled figure, its ratio of growth in the second half of training: 1.0 is none. A"
        " figure that never stops growing depends on the duration of sampling.",
    )
