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

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, StrictInt, model_validator

from ftbench.base.frozen import FrozenModel
from ftbench.plan.cell import Cell
from ftbench.records.measurement import NOISY, Measurement
from ftbench.records.predicted_peaks import PredictedPeaks

SCHEMA_VERSION = 4

# `unfit`: not run because it is predicted not to fit on the device (`--skip-unfit`).
Status = Literal["ok", "oom", "timeout", "crashed", "invalid", "unfit"]

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


class Failure(FrozenModel):
    """The reason that a cell has no result: the message, the phase and step, the end of the log."""

    message: str = Field(description="What went wrong.")
    phase: str | None = Field(None, description="The phase in which it did.")
    step: int | None = Field(None, description="The number of steps that had ended.")
    log_tail: str = Field("", description="The end of the worker's log.")
    rank: int | None = Field(
        None, description="Of several processes, the number of the one that failed first."
    )


class Record(FrozenModel):
    """One run of one cell: the request, the status, the measurement."""

    schema_version: StrictInt = Field(
        SCHEMA_VERSION, description="The version of this form of records."
    )
    cell_id: Annotated[str, Field(pattern=CELL_ID)] = Field(
        description="The hash of the cell's content: revisions, axes and settings."
    )
    replicate: Annotated[int, Field(ge=0)] = Field(
        description="The number of the replicate, from 0; each has a seed of its own."
    )
    repeat: Annotated[int, Field(ge=0)] = Field(
        0, description="The number of the repeat, from 0; all have their replicate's seed."
    )
    attempt: Annotated[int, Field(ge=0)] = Field(
        0, description="The number of earlier records of the same run."
    )
    seed: int = Field(description="The seed: the cell's, plus the number of the replicate.")
    cell: Cell = Field(description="The cell, as it was asked for.")
    axes: tuple[str, ...] = Field(description="The names of the axes of its grid.")
    status: Status = Field(
        description="`ok`, or how the run ended; `unfit` is one that was left out since it would not fit."
    )
    environment_id: str = Field(
        description="The hash of the environment, which is in environments/ID.json."
    )
    started_at: str = Field(description="The time of its start, in ISO 8601.")
    wall_s: float = Field(description="Seconds from the start of its process to its end.")
    measurement: Measurement | None = Field(
        None, description="What was measured; only with the status `ok`."
    )
    failure: Failure | None = Field(None, description="Why there is no measurement.")
    predicted: PredictedPeaks | None = Field(
        None, description="The memory that was predicted before the run."
    )
    untrusted: dict[str, str] = Field(
        default_factory=dict,
        description="Why a figure cannot be right, by its path: the invariant that it breaks.",
    )

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
