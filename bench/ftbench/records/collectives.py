"""Collectives: how long a rank communicates with the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ftbench.base.frozen import FrozenModel


class Collectives(FrozenModel):
    """The communication of a rank in a backward pass, in seconds per step, as DistributedDataParallel measures it.

    `seconds` last from the first all-reduce to the end of the last one, `exposed_s` from the end of the rank's own
    backward pass to the same end: only then does it wait. Both include waiting for a slower rank. Means over the
    steps that torch has timed: all on the CPU; on a card the first ten and every hundredth.
    """

    seconds: Annotated[float, Field(ge=0)]
    exposed_s: Annotated[float, Field(ge=0)]
