"""Record: what one replicate of one cell gave. Written once, read by everything after.

Bytes and seconds, the unit in the name. What could not be had is `None`, and `absent` says why:
it maps the field's path (`memory.peak_process_bytes`) to the reason.

Schema history
    1  2026-11  first version
    2  2026-11  the ledger (PSS, CPU tensors, context, idle baselines, sources, energy, sampling),
                named warnings, the steps' interval and warm-up, repeats, untrusted figures
    3  2026-11  predicted figures; the status `unfit`. Added since, each with a default: a cell's
                method, LoRA settings and malloc, counts of parameters, packages of its own, page faults
    4  2026-11  scores with standard errors and what guessing gives, instead of `eval_accuracy`; a
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
from ftbench.records.figures import READINGS
from ftbench.records.scores import Score

SCHEMA_VERSION = 4

# `unfit`: predicted not to fit on the device, and not run because that was asked for.
Status = Literal["ok", "oom", "timeout", "crashed", "invalid", "unfit"]
# "save" is every checkpoint, loading the best one at the end, and the final model and metrics.
PhaseName = Literal["load", "first_steps", "train", "evaluation", "save"]
PHASES: tuple[PhaseName, ...] = ("load", "first_steps", "train", "evaluation", "save")

# The steps that are a phase of their own: the optimizer's state is created in the first, and
# caches are warm only after the second.
FIRST_STEPS = 2


CELL_ID = r"^[0-9a-f]{12}$"


class Identity(NamedTuple):
    """What tells one record of a run directory from another."""

    cell_id: str
    replicate: int
    repeat: int

    @property
    def name(self) -> str:
        """Return the name that the record's files share: `CELL-r0`, or `CELL-r0-t1` for a repeat."""
        return f"{self.cell_id}-r{self.replicate}" + (f"-t{self.repeat}" if self.repeat else "")


def attempt_name(identity: Identity, attempt: int) -> str:
    """Return the name of the files of one attempt: later ones never overwrite an earlier one's."""
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
    variables: dict[str, str] = Field(default_factory=dict)  # set, and decisive for allocation
    git_commit: str | None = None  # of the folder that the command ran in

    @property
    def environment_id(self) -> str:
        """Return the hash that two runs under the same environment share; the commit is not in it."""
        # Environments had no variables once: theirs keep their hash.
        left_out = {"git_commit"} | ({"variables"} if not self.variables else set())
        text = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Memory(FrozenModel):
    """The ledger: every reading of memory for one phase, or for the whole cell, in bytes.

    Peaks since the phase began, but for `context_bytes`: what the driver holds for the process
    beyond torch's reservation (peak process less peak reserved). `Measurement.sources` says where
    each comes from.
    """

    peak_rss_bytes: int | None = None  # resident set of the worker, from the kernel
    peak_pss_bytes: int | None = None  # proportional set of its process tree, sampled
    peak_cpu_tensors_bytes: int | None = (
        None  # torch's CPU allocator, in a two-step pass of its own
    )
    peak_allocated_bytes: int | None = None  # torch.cuda: held by tensors
    peak_reserved_bytes: int | None = None  # torch.cuda: taken from the driver
    peak_process_bytes: int | None = None  # NVML: this process, sampled
    peak_device_bytes: int | None = None  # NVML: the whole card, sampled
    context_bytes: int | None = None

    # A reading of a meter that this file does not know by name: `figures.FIGURES` does.
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
    """Return the largest of each reading; one that none has is absent."""
    if len(memories) == 1:
        return memories[0]
    peaks: dict[str, int] = {}
    for memory in memories:
        for name, value in memory.model_dump(exclude_none=True).items():
            peaks[name] = max(value, peaks.get(name, value))
    return Memory(**peaks)


class Phase(FrozenModel):
    """One phase of a cell, over all the times it was entered; counts where documents pass through."""

    wall_s: float
    cpu_s: float
    entries: int
    steps: int | None = None
    samples: int | None = None
    real_tokens: int | None = None
    padded_tokens: int | None = None
    data_wait_s: float | None = None
    energy_j: float | None = None  # of the whole card
    kernel_s: float | None = None  # of cpu_s; earlier records do not have it
    page_faults: int | None = None  # minor ones: no disk was read
    memory: Memory


class Epoch(FrozenModel):
    """Losses and scores, by name, of one epoch of training."""

    epoch: int
    train_loss: float | None
    eval_loss: float | None
    scores: dict[str, float] = Field(default_factory=dict)


class StepSummary(FrozenModel):
    """Statistics of the full-size steps after warm-up; every step's time is in Parquet.

    `warmup_steps` were left out: the first two, and those that the data shows to be unsteady. `min_s` is the
    fastest, which earlier records do not have. The 95 % interval of the median is a bootstrap over blocks of
    steps. Rates are over all the `samples` after warm-up: what was seen divided by the `seconds` it took.
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
    """Why a cell has no result: the step it happened at, the message, the end of the log."""

    message: str
    phase: str | None = None
    step: int | None = None
    log_tail: str = ""


class Load(FrozenModel):
    """How busy the machine was during the cell: load averages, and shares of all processors' time.

    The shares are None where the kernel does not count them.
    """

    average_start: float
    average_end: float
    others_cpu_share: float | None
    steal_share: float | None
    # Swapped in or out machine-wide; or in swap of the worker's at its end, where those are more.
    swapped_pages: int | None = None
    throttle_events: int | None = None  # of processors that were too hot; cards are not in it


class Sampling(FrozenModel):
    """How the sampled figures were taken: by a process beside the worker's.

    `growth` says, for each sampled figure, how steadily it went on growing in the second half of
    training, 1.0 for not at all: a figure that only ever grows says how long it was sampled.
    """

    period_s: float
    samples: int
    cpu_s: float
    cpu_share: float  # of one processor, while the worker went on: it waits for the rest of cpu_s
    device_uuid: str | None = None
    growth: dict[str, float] = Field(default_factory=dict)


# What a warning in a record can be about. Those in NOISY are reasons to repeat a cell.
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
    "note",
]
NOISY: frozenset[WarningName] = frozenset(
    {"spread", "drift", "others_busy", "steal", "swap", "throttled", "tenant"}
)


class RunWarning(FrozenModel):
    """A warning that lives in the record: what was seen, against the named threshold it passed."""

    name: WarningName
    message: str
    value: float | None = None
    threshold: float | None = None


class RankMeasurement(FrozenModel):
    """One process of a cell on one device: its phases, its steps, its memory.

    `model_device` is where the parameters were: `cpu`, or the card's UUID. `idle` is the memory before the
    cell began.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    device: Device
    model_device: str
    phases: dict[PhaseName, Phase]
    steps: StepSummary | None
    memory: Memory
    idle: Memory
    sampling: Sampling | None


class Measurement(FrozenModel):
    """Everything that was measured in a cell that completed.

    `ranks` has one entry per process. `sources` says where each figure of memory comes from. The first of the
    `scores` stands for the run; there are none if the weights are random.
    """

    ranks: Annotated[tuple[RankMeasurement, ...], Field(min_length=1)]
    parameters: int | None = None  # LoRA's among them
    trainable_parameters: int | None = None
    packages: dict[str, str] = Field(default_factory=dict)  # versions of those not all cells use
    epochs: tuple[Epoch, ...]
    sources: dict[str, str]
    worker_s: float
    metering_s: float  # reading meters at the changes of phase: in no phase
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
        if [one.rank for one in self.ranks] != list(range(len(self.ranks))):
            raise ValueError("ranks: not numbered from 0")
        return self

    def score(self, name: str) -> Score | None:
        """Return a score by its name; None if it was not measured."""
        return next((score for score in self.scores if score.name == name), None)

    def with_rank(self, rank: int = 0, **changes: Any) -> Measurement:
        """Return the measurement with other fields of one of its ranks."""
        ranks = list(self.ranks)
        ranks[rank] = ranks[rank].model_copy(update=changes)
        return self.model_copy(update={"ranks": tuple(ranks)})

    # Of all ranks: they work in step, so time is the first's; what has to fit is the largest of memory.

    @property
    def device(self) -> Device:
        """Return the device of the first rank."""
        return self.ranks[0].device

    @property
    def steps(self) -> StepSummary | None:
        """Return the statistics of the first rank's steps."""
        return self.ranks[0].steps

    @cached_property
    def memory(self) -> Memory:
        """Return the largest of each reading over the ranks."""
        return largest_readings([one.memory for one in self.ranks])

    @property
    def idle(self) -> Memory:
        """Return the first rank's memory before the cell began."""
        return self.ranks[0].idle

    @cached_property
    def phases(self) -> Mapping[PhaseName, Phase]:
        """Return the first rank's phases, each with the largest of each reading of memory over the ranks."""
        first, *others = self.ranks
        if not others:
            return first.phases
        return {
            name: phase.model_copy(
                update={
                    "memory": largest_readings(
                        [phase.memory, *(o.phases[name].memory for o in others if name in o.phases)]
                    )
                }
            )
            for name, phase in first.phases.items()
        }

    @property
    def sampling(self) -> Sampling | None:
        """Return how the first rank's sampled figures were taken."""
        return self.ranks[0].sampling


class PredictedPeaks(FrozenModel):
    """What the cell was predicted to need of its device; on the CPU, tensors alone."""

    tensors_bytes: int
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None


class Record(FrozenModel):
    """One run of one cell: what was asked, how it ended, what was measured.

    A replicate runs with a seed of its own, a repeat again with the replicate's. `untrusted` maps
    the path of each figure that broke an invariant to the reason (`ftbench.records.invariants`).
    """

    schema_version: StrictInt = SCHEMA_VERSION
    cell_id: Annotated[str, Field(pattern=CELL_ID)]
    replicate: Annotated[int, Field(ge=0)]
    repeat: Annotated[int, Field(ge=0)] = 0
    attempt: Annotated[int, Field(ge=0)] = 0  # how many records of the same run this one replaced
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
            raise ValueError("seed: not its cell's and its replicate's")
        if (self.status == "ok") != (self.measurement is not None):
            raise ValueError("measurement: there where the status is ok, and only there")
        return self

    @property
    def identity(self) -> Identity:
        """Return what names this record in a run directory."""
        return Identity(self.cell_id, self.replicate, self.repeat)

    @property
    def file_name(self) -> str:
        """Return the name that this attempt's steps, samples and log share."""
        return attempt_name(self.identity, self.attempt)

    @property
    def noisy(self) -> bool:
        """Return whether something disturbed its figures enough to be a reason to run it again."""
        run_warnings = self.measurement.warnings if self.measurement else ()
        return bool(self.untrusted) or any(
            run_warning.name in NOISY for run_warning in run_warnings
        )

    def axis_value(self, name: str) -> Any:
        """Return the cell's value on an axis."""
        return self.cell.value(name)
