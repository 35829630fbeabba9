"""Collectives: how long a rank communicates with the others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ftbench.base.frozen import FrozenModel


class Collectives(FrozenModel):
    """The communication of a rank in a backward pass, in seconds per step, as DistributedDataParallel measures it.

    Both figures include waiting for a slower rank. They are means over the steps that torch has timed: all on the
    CPU; on a card the first ten and every hundredth.
    """

    seconds: Annotated[float, Field(ge=0)] = Field(
        description="Seconds from the first all-reduce of a step to the end of the last one."
    )
    exposed_s: Annotated[float, Field(ge=0)] = Field(
        description="Seconds of them after the rank's own backward pass: only then does it wait."
    )
