"""Cards: the properties of a GPU that simulations need, and the figures of a simulation on it."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version

from ftbench.plan.gpus import Gpu, capacity_bytes
from ftbench.prediction.simulate.nccl import nccl_bytes
from ftbench.prediction.simulate.simulation import Simulated
from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime, Version
from ftbench.records.prediction import CardPrediction, PredictedBytes, Verdict

# Resident threads of a multiprocessor (CUDA C++ Programming Guide, table of technical
# specifications by compute capability); 2048 for those not named.
_THREADS = {(7, 5): 1024, (8, 6): 1536, (8, 7): 1536, (8, 9): 1536, (12, 0): 1536}
# For a card without a number in the catalogue: the largest number of a card with as much memory.
_UNKNOWN_MULTIPROCESSORS = 132


@dataclasses.dataclass(frozen=True)
class Card:
    """The inputs of a simulation: the version of torch, the card, and intervals.

    Each pair is (least, most) in bytes: `capacity` is the memory that the allocator may reserve, `context` the
    memory of the process beside it: its CUDA context, and NCCL's communicators if there are any.
    """

    name: str
    runtime: Runtime
    capacity: tuple[int, int]
    context: tuple[int, int]

    def with_communicators(self, number: int) -> Card:
        """Return the card as a process has it whose communicators of NCCL take memory beside the allocator."""
        least, most = nccl_bytes(number)
        return dataclasses.replace(
            self,
            capacity=(max(self.capacity[0] - most, 0), max(self.capacity[1] - least, 0)),
            context=(self.context[0] + least, self.context[1] + most),
        )

    @property
    def capacities(self) -> tuple[int, int, int]:
        """Return the bytes that the allocator may reserve: the middle, for the single figure, and both ends.

        None is 0, which an allocator's settings do not take: there is no room in one byte either.
        """
        least, most = (max(end, 1) for end in self.capacity)
        return (least + most) // 2, least, most


def card_of(gpu: Gpu, torch_version: Version | None = None) -> Card:
    """Return a GPU as a `Card`, under a version of torch (by default the installed one)."""
    runtime = Runtime(
        compute_capability=gpu.compute_capability,
        torch_version=torch_version or installed_torch(),
        multiprocessors=gpu.multiprocessors or _UNKNOWN_MULTIPROCESSORS,
        threads_per_multiprocessor=_THREADS.get(gpu.compute_capability, 2048),
    )
    context = (gpu.context_low_bytes, gpu.context_high_bytes)
    return Card(gpu.name, runtime, capacity_bytes(gpu), context)


def installed_torch() -> Version:
    """Return the installed torch's version, major and minor."""
    major, minor, *_ = version("torch").split(".")
    return int(major), int(minor)


def on_card(card: Card, simulated: Simulated) -> CardPrediction:
    """Return a simulation's figures, and whether it fits."""
    reserved = _figure(simulated, "peak_reserved_bytes")
    return CardPrediction(
        gpu=card.name,
        requested=_figure(simulated, "peak_requested_bytes"),
        allocated=_figure(simulated, "peak_allocated_bytes"),
        reserved=reserved,
        process=PredictedBytes(
            value_bytes=reserved.value_bytes + sum(card.context) // 2,
            low_bytes=reserved.low_bytes + card.context[0],
            high_bytes=reserved.high_bytes + card.context[1],
            certainty="interval",
        ),
        capacity_low_bytes=card.capacity[0],
        capacity_high_bytes=card.capacity[1],
        verdict=verdict_of(simulated),
    )


def verdict_of(simulated: Simulated) -> Verdict:
    """Return whether a cell fits in every scenario, in none, or only in some."""
    if simulated.out_of_memory == "never":
        return "fits"
    return "does not fit" if simulated.out_of_memory == "always" else "too close to call"


def _figure(simulated: Simulated, name: str) -> PredictedBytes:
    low, high = simulated.interval(name)
    value = getattr(simulated.first, name)
    return PredictedBytes(value_bytes=value, low_bytes=low, high_bytes=high, certainty="simulated")
