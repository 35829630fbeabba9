"""What an operator does to the allocator, and the card and the torch that decide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Version = tuple[int, int]
FLOAT_BYTES = 4  # kernels accumulate 16-bit and 32-bit floats in this


@dataclass(frozen=True)
class Runtime:
    """The card and the torch that workspaces depend on. The default is an A100 with torch 2.13."""

    compute_capability: tuple[int, int] = (8, 0)
    torch_version: Version = (2, 13)
    multiprocessors: int = 108
    threads_per_multiprocessor: int = 2048  # 1536 for capability 8.6, 8.9 and 12.0, 1024 for 7.5

    def __post_init__(self) -> None:
        if self.multiprocessors < 1 or self.threads_per_multiprocessor < 1:
            raise ValueError(
                f"{self.multiprocessors} multiprocessors of {self.threads_per_multiprocessor} "
                "threads; expected at least 1 of either"
            )


class Step(NamedTuple):
    """One thing an operator does to the allocator; `output` is where it allocates its result."""

    action: Literal["allocate", "free", "output"]
    name: str
    nbytes: int = 0


Steps = tuple[Step, ...]


def allocate(name: str, nbytes: int) -> Step:
    """Return an allocation of bytes under a name."""
    return Step("allocate", name, nbytes)


def free(*names: str) -> Steps:
    """Return what gives names back, in this order."""
    return tuple(Step("free", name) for name in names)


def transient(name: str, nbytes: int) -> Steps:
    """Return an allocation that is given back at once."""
    return (allocate(name, nbytes), *free(name))


def ceil_div(value: int, unit: int) -> int:
    """Return how many units hold a value."""
    return -(-value // unit)


def round_up(value: int, unit: int) -> int:
    """Return the smallest multiple of a unit that holds a value."""
    return ceil_div(value, unit) * unit
