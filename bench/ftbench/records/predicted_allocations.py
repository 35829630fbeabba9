"""Predicted allocations: the requests of a predicted run to torch's caching allocator, in order. Plain data."""

from __future__ import annotations

from ftbench.base.frozen import FrozenModel

WORKSPACES = "workspaces"  # the role of what kernels allocate for themselves


class PredictedPart(FrozenModel):
    """The origin of an allocation: phase, step (0 before the first), role, module, operator, line of code.

    `module` names all layers of a stack as one (`layer.*`); `source` is `file:line`, empty if unknown.
    """

    phase: str
    step: int
    role: str
    module: str
    operator: str
    source: str = ""


class PredictedAllocations(FrozenModel):
    """The allocations of the set-up and of the first steps, in order: one entry per allocation in each column.

    `nbytes` are requested bytes, never 0; `streams` are numbers of CUDA streams, 0 for the default one; `ended`
    is the number of allocations that are made before the allocation is freed, -1 if it is not freed; `parts`
    are indices in `part_names`.
    """

    nbytes: tuple[int, ...]
    streams: tuple[int, ...]
    ended: tuple[int, ...]
    parts: tuple[int, ...]
    part_names: tuple[PredictedPart, ...]

    def part(self, row: int) -> PredictedPart:
        """Return the origin of an allocation."""
        return self.part_names[self.parts[row]]
