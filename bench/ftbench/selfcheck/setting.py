"""The setting of a row: the machine, a folder, engines, and the card as predictions know it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ftbench.base.errors import ProfileError
from ftbench.execute.engines.local import LocalEngine
from ftbench.plan.devices import Placement
from ftbench.plan.gpus import Gpu, custom_gpu, find_gpu, known_capability
from ftbench.records.selfcheck import Machine, SelfcheckCard

_EXPANDABLE = "expandable_segments:true"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row's machine and its folder, in which all that it writes is."""

    machine: Machine
    folder: Path

    @property
    def card(self) -> SelfcheckCard:
        """Return the card that rows of one card run on."""
        return self.machine.cards[0]

    @property
    def placement(self) -> Placement:
        """Return the place of rows of one card."""
        return Placement(kind="cuda", devices=(self.card.uuid,))

    def engine(self) -> LocalEngine:
        """Return the engine whose workers see the card."""
        return LocalEngine("spawn", self.placement.environment)

    def predictor(self) -> LocalEngine:
        """Return the engine of predictions, whose workers see no card."""
        return LocalEngine("spawn", Placement(kind="cpu").environment)

    @property
    def expandable_segments(self) -> bool:
        """Return whether the environment asks for expandable segments."""
        names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
        return any(_EXPANDABLE in os.environ.get(name, "").lower() for name in names)


def gpu_of_card(card: SelfcheckCard) -> Gpu:
    """Return a card for predictions: its entry in the catalogue, or one made of what torch says of it.

    Both with the memory that torch reports. A capability that is not known is taken as the largest known one below.
    """
    total = card.total_memory_bytes
    try:
        found = find_gpu(card.name)
    except ProfileError:
        made = custom_gpu(f"{total} B", known_capability(card.compute_capability))
        found = made.model_copy(update={"name": card.name, "multiprocessors": card.multiprocessors})
    return found.model_copy(update={"memory_low_bytes": total, "memory_bytes": total})


def is_known(card: SelfcheckCard) -> bool:
    """Return whether a card is in the catalogue."""
    try:
        find_gpu(card.name)
    except ProfileError:
        return False
    return True
