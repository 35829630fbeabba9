"""The settings of a simulated CUDA caching allocator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AllocatorSettings:
    """A process's limit, and how its allocator makes segments.

    `capacity_bytes` is the memory that the process may reserve: the card's total less the CUDA context; None is
    no limit. `address_order` says whether the addresses of new segments rise or fall. It decides which of two
    free blocks of the same size is used; NVIDIA does not document it.
    """

    capacity_bytes: int | None = None
    address_order: Literal["ascending", "descending"] = "descending"
    expandable_segments: bool = False

    def __post_init__(self) -> None:
        if self.capacity_bytes is not None and self.capacity_bytes <= 0:
            raise ValueError(f"capacity_bytes is {self.capacity_bytes}; expected > 0, or None")
        if self.address_order not in ("ascending", "descending"):
            raise ValueError(
                f"address_order is {self.address_order!r}; expected 'ascending' or 'descending'"
            )
