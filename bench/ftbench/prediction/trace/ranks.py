"""Ranks: the processes of a run on several GPUs, of which a trace is one."""

from __future__ import annotations

import dataclasses
import math

from ftbench.base.errors import PredictionError


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The processes of a run, one per GPU, and the rank that is traced.

    `mesh` is the shape in which they are arranged, one row of `size` without it, and `names` are the names of its
    dimensions, such as `("replicate", "shard")`. Raises PredictionError if these disagree.
    """

    size: int
    mesh: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None
    rank: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.rank < self.size:
            raise PredictionError(
                "a rank that does not exist",
                got=f"rank {self.rank} of {self.size}",
                expected="a size of at least 1, and a rank from 0 to size - 1",
            )
        if math.prod(self.shape) != self.size or min(self.shape) < 1:
            raise PredictionError(
                "the mesh does not have one place for each rank",
                got=f"{self.mesh} for {self.size} ranks",
                expected=f"positive numbers whose product is {self.size}",
            )
        if self.names is not None and len(self.names) != len(self.shape):
            raise PredictionError(
                "the mesh does not have one name for each dimension",
                got=f"{self.names} for {self.shape}",
                expected=f"{len(self.shape)} names",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the mesh."""
        return self.mesh or (self.size,)
