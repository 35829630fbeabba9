"""Card speed: the figures of a data sheet that a step's time depends on. Plain data, from the catalogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ftbench.plan.gpus import Dtype, Gpu

# Chips by the process that they are made in. Chips for servers with HBM (GP100, GV100, GA100, GH100, GB100) have
# power to spare at their boost clock, and so have no generation here whose power limit may bind.
Generation = Literal["server", "pascal", "turing", "ga10x", "ada", "blackwell"]
_GENERATIONS: Mapping[tuple[int, int], Generation] = {
    (6, 1): "pascal",
    (7, 5): "turing",
    (8, 6): "ga10x",
    (8, 9): "ada",
    (12, 0): "blackwell",
}

_HALVED_RATE = (
    700  # FLOP per multiprocessor and cycle: between Turing's full rate, 1024, and GeForce's 512
)


@dataclasses.dataclass(frozen=True)
class CardSpeed:
    """The speed of one kind of card by its data sheet.

    `peak_flops` are dense FLOP/s by type at the boost clock, `boost_hz` that clock, `tdp_watts` the power limit.
    `geforce` is for desktop GeForce cards, which run above their stated boost clock if the power allows it.
    """

    name: str
    compute_capability: tuple[int, int]
    peak_flops: Mapping[Dtype, float]
    bandwidth_bytes_per_s: float
    multiprocessors: int
    boost_hz: float
    tdp_watts: float
    geforce: bool = False

    @property
    def early_tensor_cores(self) -> bool:
        """Return whether products run on tensor cores of Volta or Turing at their full rate.

        Their instructions take smaller pieces of a product than Ampere's (PTX ISA, `mma`: m8n8k4 and m16n8k8, not
        m16n8k16), so operands are read more often and less of the peak is reached. GeForce cards of Turing are held
        to half the rate, which they reach.
        """
        if self.compute_capability[0] != 7:
            return False
        per_cycle = self.peak_flops["fp16"] / (self.multiprocessors * self.boost_hz)
        return per_cycle > _HALVED_RATE

    @property
    def generation(self) -> Generation:
        """Return the generation of the chip."""
        return _GENERATIONS.get(self.compute_capability, "server")


def speed_of(gpu: Gpu) -> CardSpeed | None:
    """Return a catalogued card's speed; None if a figure of it is not known."""
    bandwidth, clock, power = gpu.bandwidth_bytes_per_s, gpu.boost_hz, gpu.tdp_watts
    if bandwidth is None or gpu.multiprocessors is None or clock is None or power is None:
        return None
    return CardSpeed(
        name=gpu.name,
        compute_capability=gpu.compute_capability,
        peak_flops=gpu.peak_flops,
        bandwidth_bytes_per_s=bandwidth,
        multiprocessors=gpu.multiprocessors,
        boost_hz=clock,
        tdp_watts=power,
        geforce=any("GeForce" in name for name in gpu.products),
    )
