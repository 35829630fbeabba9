"""The worker that looks at what torch can use and read on this machine; a card gets a context for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ftbench.records.doctor import CardFacts, TorchFacts
from ftbench.records.messages import Progress
from ftbench.worker.measure.device import gpu_uuid
from ftbench.worker.measure.meters.host import HostMemory
from ftbench.worker.measure.meters.nvml import NvmlCard
from ftbench.worker.process.malloc import malloc_variables


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `TorchFacts` as JSON data."""
    emit(Progress(phase="looking at the cards"))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return TorchFacts(
        version=torch.__version__,
        cuda=torch.version.cuda,
        cards=tuple(map(_card, range(count))),
        threads=torch.get_num_threads(),
        host_memory_absent=_host_memory_absent(),
        variables=malloc_variables(),
    ).model_dump(mode="json")


def _card(number: int) -> CardFacts:
    """Return what the driver says of a card while this process has memory on it."""
    kept = torch.zeros(1, device=f"cuda:{number}")
    torch.cuda.synchronize(number)
    properties = torch.cuda.get_device_properties(number)
    card = NvmlCard(gpu_uuid(properties), os.getpid())
    reading, energy = card.read(), card.energy_mj()
    del kept
    return CardFacts(
        name=properties.name,
        total_memory_bytes=properties.total_memory,
        device_bytes=reading.device_bytes,
        process_bytes=reading.process_bytes,
        tells_clocks=reading.slowing is not None,
        tells_energy=energy is not None,
        absent=reading.absent,
    )


def _host_memory_absent() -> str | None:
    meter = HostMemory()
    meter.start("doctor")
    meter.read()
    return meter.absent().get("peak_rss_bytes")
