"""Checkpoint: which of a model's parameters were read from it."""

from __future__ import annotations

from ftbench.base.frozen import FrozenModel


class Checkpoint(FrozenModel):
    """Which of the model's parameters were read from the checkpoint, and which are new. Counts are of elements.

    `new` has the names of the new tensors: the head, as a rule. `new_in_body` of them are outside the head, which
    the workload accepted. `reshaped` were in the checkpoint with another shape: the head of another number of
    labels. `unused` tensors of the checkpoint are not in the model.
    """

    loaded_parameters: int
    new_parameters: int
    new: tuple[str, ...] = ()
    new_in_body: int = 0
    reshaped: tuple[str, ...] = ()
    unused: int = 0
