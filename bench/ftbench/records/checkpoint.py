"""Checkpoint: which of a model's parameters were read from it."""

from __future__ import annotations

from pydantic import Field

from ftbench.base.frozen import FrozenModel


class Checkpoint(FrozenModel):
    """Which of the model's parameters were read from the checkpoint, and which are new."""

    loaded_parameters: int = Field(description="Elements of the parameters that were read.")
    new_parameters: int = Field(description="Elements of the parameters that are new.")
    new: tuple[str, ...] = Field(
        (), description="The names of the new tensors: the head, as a rule."
    )
    new_in_body: int = Field(
        0, description="Tensors among them outside the head, which the workload accepted."
    )
    reshaped: tuple[str, ...] = Field(
        (),
        description="Names of tensors that the checkpoint has with another shape: a head of other labels.",
    )
    unused: int = Field(0, description="Tensors of the checkpoint that are not in the model.")
