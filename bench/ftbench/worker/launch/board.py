"""Board: shared memory in which each rank writes its position, so that it can be read while the rank is stuck.

The launcher makes it before it forks the ranks. A field is written by one thread of one rank; a reader may see
some fields of a moment and some of the next.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import struct

from ftbench.records.messages import Progress, RankPosition
from ftbench.records.readings import PHASES

_NUMBER, _UNKNOWN = struct.Struct("=d"), math.nan
_FIELDS = ("pid", "phase", "step", "max_steps", "epoch", "loss", "collectives")
_BYTES = _NUMBER.size * len(_FIELDS)


@dataclasses.dataclass(frozen=True)
class Row:
    """What one rank has written; a field is None as long as it is unknown."""

    pid: int | None
    phase: str | None
    step: int | None
    max_steps: int | None
    epoch: float | None
    loss: float | None
    collectives: int | None

    @property
    def position(self) -> RankPosition:
        """Return the part that tells ranks apart."""
        return RankPosition(phase=self.phase, step=self.step, collectives=self.collectives)


class Board:
    """One row of numbers per rank, in memory that forked processes share."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._memory = mmap.mmap(-1, _BYTES * ranks)
        for rank in range(ranks):
            self._put(rank, **dict.fromkeys(_FIELDS, _UNKNOWN))

    def _put(self, rank: int, **values: float | None) -> None:
        for name, value in values.items():
            place = rank * _BYTES + _FIELDS.index(name) * _NUMBER.size
            _NUMBER.pack_into(self._memory, place, _UNKNOWN if value is None else value)

    def begin(self, rank: int, pid: int) -> None:
        """Write the PID of a rank's process."""
        self._put(rank, pid=pid)

    def advance(self, rank: int, progress: Progress) -> None:
        """Write a rank's progress; a message that only names a phase leaves the step as it was."""
        self._put(rank, phase=PHASES.index(progress.phase))
        if progress.step is not None:
            fields = ("step", "max_steps", "epoch", "loss")
            self._put(rank, **{name: getattr(progress, name) for name in fields})

    def count(self, rank: int, collectives: int) -> None:
        """Write the number of collectives that a rank has begun."""
        self._put(rank, collectives=collectives)

    def row(self, rank: int) -> Row:
        """Return what a rank has written."""
        found: dict[str, float | None] = {}
        for number, name in enumerate(_FIELDS):
            (value,) = _NUMBER.unpack_from(self._memory, rank * _BYTES + number * _NUMBER.size)
            found[name] = None if math.isnan(value) else value
        phase = _whole(found["phase"])
        return Row(
            pid=_whole(found["pid"]),
            phase=None if phase is None else PHASES[phase],
            step=_whole(found["step"]),
            max_steps=_whole(found["max_steps"]),
            epoch=found["epoch"],
            loss=found["loss"],
            collectives=_whole(found["collectives"]),
        )

    def progress(self) -> Progress | None:
        """Return the progress of rank 0, with the positions of all; None before rank 0 has entered a phase."""
        rows = [self.row(rank) for rank in range(self.ranks)]
        first = rows[0]
        if first.phase is None:
            return None
        return Progress(
            phase=first.phase,
            step=first.step,
            max_steps=first.max_steps,
            epoch=first.epoch,
            loss=first.loss,
            ranks=tuple(row.position for row in rows),
        )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
