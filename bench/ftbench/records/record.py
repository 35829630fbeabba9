"""Record: the result of one run of one cell. Written once; gates, estimates and reports read it.

Bytes and seconds, with the unit in the name. A figure that could not be measured is `None`, and `absent`
maps its path (`memory.peak_process_bytes`) to the reason.

Schema history
    1  2026-11  first version
    2  2026-11  more readings of memory (PSS, CPU tensors, context, idle values, sources, energy, sampling),
                named warnings, the steps' interval and warm-up, repeats, untrusted figures
    3  2026-11  predicted figures; the status `unfit`. Added since, each with a default: a cell's
                method, LoRA settings and malloc, counts of parameters, packages of its own, page faults
    4  2026-11  scores with standard errors and the score of a guess, instead of `eval_accuracy`; a
                measurement by rank; a cell's task. `ftbench.records.migration` reads schema 3
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, StrictInt, model_validator

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.records.checkpoint import Checkpoint
from ftbench.records.collectives import Collectives
from ftbench.records.figures import READINGS
from ftbench.records.predicted_peaks import PredictedPeaks
from ftbench.records.scores import Score

SCHEMA_VERSION = 4

# `unfit`: not run because it is predicted not to fit on the device (`--skip-unfit`).
Status = Literal["ok", "oom", "timeout", "crashed", "invalid", "unfit"]
# "save" is the writing of checkpoints, the loading of the best one, and the writing of the final model.
PhaseName = Literal["load", "first_steps", "train", "evaluation", "save"]
PHASES: tuple[PhaseName, ...] = ("load", "first_steps", "train", "evaluation", "save")

# The steps that are a phase of their own: the optimizer's state is created in the first, and
# caches are warm only after the second.
FIRST_STEPS = 2


CELL_ID = r"^[0-9a-f]{12}$"


class Identity(NamedTuple):
    """The identity of a record in its run directory."""

    cell_id: str
    replicate: int
    repeat: int

    @property
    def name(self) -> str:
        """Return the name that the record's files share: `CELL-r0`, or `CELL-r0-t1` for a repeat."""
        return f"{self.cell_id}-r{self.replicate}" + (f"-t{self.repeat}" if self.repeat else "")


def attempt_name(identity: Identity, attempt: int) -> str:
    """Return the name of the files of one attempt, so that a later attempt never overwrites an earlier one."""
    return identity.name + (f".{attempt}" if attempt else "")


class Device(FrozenModel):
    """The one device that a cell ran on."""

    kind: Literal["cpu", "cuda"]
    name: str
    uuid: str | None = None
    total_memory_bytes: int | None = None
    threads: int | None = None


class Environment(FrozenModel):
    """Packages, hardware and driver that figures depend on; recorded apart from the cells."""

    python: str
    platform: str
    packages: dict[str, str]
    cpu: str
    cores: int
    memory_bytes: int
    device: Device
    driver: str | None = None
    cuda: str | None = None
    variables: dict[str, str] = Field(default_factory=dict)  # variables set that change allocation
    git_commit: str | None = None  # the commit of the folder that the command ran in

    @property
    def environment_id(self) -> str:
        """Return a hash that is equal for equal environments; the commit is not part of it."""
        # Older environments have no variables: without any, the hash stays the same.
        left_out = {"git_commit"} | ({"variables"} if not self.variables else set())
        text = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Memory(FrozenModel):
    """The readings of memory of one phase, or of the whole cell, in bytes.

    Peaks since the phase began, except `context_bytes`: the driver's memory for the process beyond torch's
    reservation (peak process less peak reserved). `Measurement.sources` names the source of each.
    """

    peak_rss_bytes: int | None = None  # resident set of the worker, from the kernel
    peak_pss_bytes: int | None = None  # proportional set of its process tree, sampled
    peak_cpu_tensors_bytes: int | None = (
        None  # torch's CPU allocator, in a two-step pass of its own
    )
    peak_allocated_bytes: int | None = None  # torch.cuda: allocated by tensors
    peak_reserved_bytes: int | None = None  # torch.cuda: taken from the driver
    peak_process_bytes: int | None = None  # NVML: this process, sampled
    peak_device_bytes: int | None = None  # NVML: the whole card, sampled
    context_bytes: int | None = None

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

    wall_s: float
    cpu_s: float
    entries: int
    steps: int | None = None
    samples: int | None = None
    real_tokens: int | None = None
    padded_tokens: int | None = None
    data_wait_s: float | None = None
    energy_j: float | None = None  # that of the whole card
    kernel_s: float | None = None  # the part of cpu_s in the kernel; absent in earlier records
    page_faults: int | None = None  # minor faults only, which read nothing from the disk
    memory: Memory


class Epoch(FrozenModel):
    """Losses and scores, by name, of one epoch of training."""

    epoch: int
    train_loss: float | None
    eval_loss: float | None
    scores: dict[str, float] = Field(default_factory=dict)


class StepSummary(FrozenModel):
    """Statistics of the full-size steps after warm-up; the Parquet file has the time of every step.

    `warmup_steps` are left out: the first two, and later ones that are still unsteady. `min_s` is the fastest
    step; earlier records do not have it. The 95 % interval of the median is a bootstrap over blocks of steps.
    Rates are counts over all `samples` after warm-up, divided by their `seconds`.
    """

    count: int
    warmup_steps: int
    median_s: float
    median_low_s: float
    median_high_s: float
    q1_s: float
    q3_s: float
    seconds: float
    samples: int
    data_wait_median_s: float
    min_s: float | None = None
    samples_per_s: float
    real_tokens_per_s: float
    padded_tokens_per_s: float
    flops_per_s: float | None = None
    mfu: float | None = None


class Failure(FrozenModel):
    """The reason that a cell has no result: the message, the phase and step, the end of the log."""

    message: str
    phase: str | None = None
    step: int | None = None
    log_tail: str = ""
    rank: int | None = None  # of several processes, the one that failed first


class Load(FrozenModel):
    """How busy the machine was during the cell: load averages, and shares of all processors' time.

    The shares are None if the kernel does not count them.
    """

    average_start: float
    average_end: float
    others_cpu_share: float | None
    steal_share: float | None
    # The larger of: pages swapped in or out machine-wide; pages of the worker in swap at its end.
    swapped_pages: int | None = None
    throttle_events: int | None = None  # those of overheated processors, without the cards


class Sampling(FrozenModel):
    """How the sampled figures were taken, by a process beside the worker's.

    `growth` is, for each sampled figure, its ratio of growth in the second half of training; 1.0 means no
    growth. A figure that never stops growing depends on the duration of sampling.
    """

    period_s: float
    samples: int
    cpu_s: float
    cpu_share: float  # share of one processor while the worker ran; it waits for the rest of cpu_s
    device_uuid: str | None = None
    growth: dict[str, float] = Field(default_factory=dict)


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

    name: WarningName
    message: str
    value: float | None = None
    threshold: float | None = None


class RankMeasurement(FrozenModel):
    """One process of a cell on one device: its phases, its steps, its memory.

    `model_device` is the device of the parameters: `cpu`, or the card's UUID. `idle` is the memory before the
    cell began. `collectives` are absent of a single process, and of other strategies than DDP.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    device: Device
    model_device: str
    phases: dict[PhaseName, Phase]
    steps: StepSummary | None
    memory: Memory
    idle: Memory
    sampling: Sampling | None
    collectives: Collectives | None = None


class Measurement(FrozenModel):
    """All measurements of a cell that completed.

    `ranks` has one entry per process. Of several, `together` are the steps of all: counts are sums, and a step
    takes as long as on its slowest rank. `sources` names the source of each memory figure. The first of the
    `scores` is the headline score of the run; there are no scores if the weights are random.
    """

    ranks: Annotated[tuple[RankMeasurement, ...], Field(min_length=1)]
    together: StepSummary | None = None
    parameters: int | None = None  # including LoRA's
    trainable_parameters: int | None = None
    packages: dict[str, str] = Field(
        default_factory=dict
    )  # versions of packages that only some cells use
    checkpoint: Checkpoint | None = None  # absent in earlier records, and with random weights
    attn_implementation: str | None = None  # the one that ran; absent in earlier records
    epochs: tuple[Epoch, ...]
    sources: dict[str, str]
    worker_s: float
    metering_s: float  # the time of reading meters between phases; part of no phase
    total_s: float
    train_s: float
    train_loss: float | None
    eval_loss: float | None
    scores: tuple[Score, ...] = ()
    load: Load
    peak_matmul_flops: float | None
    absent: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[RunWarning, ...] = ()

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


class Record(FrozenModel):
    """One run of one cell: the request, the status, the measurement.

    Each replicate has its own seed; its repeats run with the same seed. `untrusted` maps the path of each
    figure that broke an invariant to the reason (`ftbench.records.invariants`).
    """

    schema_version: StrictInt = SCHEMA_VERSION
    cell_id: Annotated[str, Field(pattern=CELL_ID)]
    replicate: Annotated[int, Field(ge=0)]
    repeat: Annotated[int, Field(ge=0)] = 0
    attempt: Annotated[int, Field(ge=0)] = 0  # number of earlier records of the same run
    seed: int
    cell: Cell
    axes: tuple[str, ...]
    status: Status
    environment_id: str
    started_at: str
    wall_s: float
    measurement: Measurement | None = None
    failure: Failure | None = None
    predicted: PredictedPeaks | None = None
    untrusted: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.cell_id != self.cell.cell_id:
            raise ValueError(f"cell_id: its cell has the id {self.cell.cell_id}")
        if self.seed != self.cell.seed + self.replicate:
            raise ValueError("seed: not the sum of the cell's seed and the replicate's number")
        if (self.status == "ok") != (self.measurement is not None):
            raise ValueError("measurement: required with the status ok, forbidden with any other")
        return self

    @property
    def identity(self) -> Identity:
        """Return the identity that names this record in a run directory."""
        return Identity(self.cell_id, self.replicate, self.repeat)

    @property
    def file_name(self) -> str:
        """Return the common name of this attempt's steps, samples and log files."""
        return attempt_name(self.identity, self.attempt)

    @property
    def noisy(self) -> bool:
        """Return whether its figures are untrusted or so disturbed that it should be run again."""
        run_warnings = self.measurement.warnings if self.measurement else ()
        return bool(self.untrusted) or any(
            run_warning.name in NOISY for run_warning in run_warnings
        )

    def axis_value(self, name: str) -> Any:
        """Return the cell's value on an axis."""
        return self.cell.value(name)
