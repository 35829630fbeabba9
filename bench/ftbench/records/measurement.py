"""Measurement: all that was measured of a cell that completed, and the warnings about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ftbench.base.frozen import FrozenModel
from ftbench.records.checkpoint import Checkpoint
from ftbench.records.collectives import Collectives
from ftbench.records.environment import Device
from ftbench.records.readings import (
    Epoch,
    Load,
    Memory,
    Phase,
    PhaseName,
    Sampling,
    StepSummary,
    largest_readings,
)
from ftbench.records.scores import Score

# The kinds of warnings in a record. Those in NOISY are reasons to repeat a cell.
WarningName = Literal[
    "spread",
    "drift",
    "unsteady",
    "others_busy",
    "steal",
    "swap",
    "page_faults",
    "throttled",
    "tenant",
    "cache_retries",
    "sampling_cost",
    "loader_processes",
    "diverged",
    "attention",
    "new_weights",
    "unknown_tokens",
    "padding_token",
    "one_class",
    "trained_on",
    "left_out",
    "chosen_on_evaluation",
    "note",
]
NOISY: frozenset[WarningName] = frozenset(
    {"spread", "drift", "others_busy", "steal", "swap", "throttled", "tenant"}
)
# Those that follow from the profile: all runs of a cell have them, whatever happened in a run.
REMARKS: frozenset[WarningName] = frozenset({"left_out", "chosen_on_evaluation"})


class RunWarning(FrozenModel):
    """A warning in a record: a value that passed a named threshold, or a note."""

    name: WarningName = Field(description="The kind of warning.")
    message: str = Field(description="What was seen, the likely cause, and what helps.")
    value: float | None = Field(None, description="The value that passed the threshold.")
    threshold: float | None = Field(None, description="The threshold.")


class RankMeasurement(FrozenModel):
    """One process of a cell on one device: its phases, its steps, its memory."""

    rank: Annotated[int, Field(ge=0)] = Field(0, description="The number of the process, from 0.")
    device: Device = Field(description="The device of this process.")
    model_device: str = Field(
        description="The device that the parameters were on: `cpu`, or the card's UUID."
    )
    phases: dict[PhaseName, Phase] = Field(description="The phases that it went through, by name.")
    steps: StepSummary | None = Field(
        description="Statistics of its steps; None if too few are left after warm-up."
    )
    memory: Memory = Field(description="The largest readings over all phases.")
    idle: Memory = Field(description="The readings before the cell began.")
    sampling: Sampling | None = Field(description="How its sampled figures were taken.")
    collectives: Collectives | None = Field(
        None,
        description="Its communication; absent of a single process, and of other strategies than DDP.",
    )


class Measurement(FrozenModel):
    """All measurements of a cell that completed. There are no scores if the weights are random."""

    ranks: Annotated[tuple[RankMeasurement, ...], Field(min_length=1)] = Field(
        description="One entry per process."
    )
    together: StepSummary | None = Field(
        None,
        description="The steps of several processes: counts are sums, and a step takes as long as on its slowest"
        " rank.",
    )
    parameters: int | None = Field(
        None, description="Elements of all parameters, including LoRA's."
    )
    trainable_parameters: int | None = Field(
        None, description="Elements of the parameters that are trained."
    )
    packages: dict[str, str] = Field(
        default_factory=dict, description="Versions of packages that only some cells use, by name."
    )
    checkpoint: Checkpoint | None = Field(
        None,
        description="What was read from the checkpoint; absent in earlier records, and with random weights.",
    )
    attn_implementation: str | None = Field(
        None, description="The attention that ran; absent in earlier records."
    )
    epochs: tuple[Epoch, ...] = Field(description="Losses and scores of each epoch.")
    sources: dict[str, str] = Field(description="The source of each memory figure, by its path.")
    worker_s: float = Field(description="Seconds from the worker's request to its answer.")
    metering_s: float = Field(
        description="Seconds of reading meters between phases; part of no phase."
    )
    total_s: float = Field(description="Seconds of all phases.")
    train_s: float = Field(
        description="Seconds of training: the phases first_steps and train, without evaluations."
    )
    train_loss: float | None = Field(description="The mean loss over all training steps.")
    eval_loss: float | None = Field(
        description="The loss of the model that was kept, on the evaluation examples."
    )
    scores: tuple[Score, ...] = Field(
        (), description="The scores of the model that was kept; the first is the run's headline."
    )
    load: Load = Field(description="How busy the machine was.")
    peak_matmul_flops: float | None = Field(
        description="Floating-point operations per second of a matrix product, measured on the device."
    )
    absent: dict[str, str] = Field(
        default_factory=dict,
        description="Why a figure could not be measured, by its path (`memory.peak_process_bytes`).",
    )
    warnings: tuple[RunWarning, ...] = Field((), description="What is to be known of the run.")

    @model_validator(mode="after")
    def _ranks_are_numbered(self) -> Self:
        if [measured.rank for measured in self.ranks] != list(range(len(self.ranks))):
            raise ValueError("ranks: not numbered from 0")
        return self

    def score(self, name: str) -> Score | None:
        """Return a score by its name; None if it was not measured."""
        return next((score for score in self.scores if score.name == name), None)

    def with_rank(self, rank: int = 0, **changes: Any) -> Measurement:
        """Return the measurement with changed fields in one of its ranks."""
        ranks = list(self.ranks)
        ranks[rank] = ranks[rank].model_copy(update=changes)
        return self.model_copy(update={"ranks": tuple(ranks)})

    # Ranks work in step, so the times of phases are those of the first; memory is the largest over all ranks.

    @property
    def device(self) -> Device:
        """Return the device of the first rank."""
        return self.ranks[0].device

    @property
    def steps(self) -> StepSummary | None:
        """Return the statistics of the steps of all ranks together."""
        return self.ranks[0].steps if self.together is None else self.together

    @cached_property
    def memory(self) -> Memory:
        """Return the largest of each reading over the ranks."""
        return largest_readings([measured.memory for measured in self.ranks])

    @property
    def idle(self) -> Memory:
        """Return the first rank's memory before the cell began."""
        return self.ranks[0].idle

    @cached_property
    def phases(self) -> Mapping[PhaseName, Phase]:
        """Return the first rank's phases, each with the memory, the counts and the energy of all ranks."""
        first, *others = self.ranks
        if not others:
            return first.phases
        return {
            name: _of_all(name, [phase, *(r.phases[name] for r in others if name in r.phases)])
            for name, phase in first.phases.items()
        }

    @property
    def sampling(self) -> Sampling | None:
        """Return how the first rank's sampled figures were taken."""
        return self.ranks[0].sampling


def _of_all(name: PhaseName, phases: Sequence[Phase]) -> Phase:
    """Return one phase of all ranks: the first's, with the largest readings, and sums of energy and counts."""
    # Each rank counts all examples of an evaluation.
    counts = () if name == "evaluation" else ("samples", "real_tokens", "padded_tokens")
    changes: dict[str, Any] = {"memory": largest_readings([phase.memory for phase in phases])}
    for field in ("energy_j", *counts):
        values = [getattr(phase, field) for phase in phases]
        changes[field] = None if None in values else sum(values)
    return phases[0].model_copy(update=changes)
