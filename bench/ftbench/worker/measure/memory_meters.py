"""Ledger: the meters that a worker's memory is read by, chosen for its device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from ftbench.records.record import RunWarning, Sampling
from ftbench.worker.measure.device import describe, gpu_uuid
from ftbench.worker.measure.meters import MemoryMeter
from ftbench.worker.measure.meters.host import HostMemory
from ftbench.worker.measure.meters.sampled import SampledMemory
from ftbench.worker.measure.meters.torch_cuda import NoCuda, TorchCudaMemory


class MemoryMeters:
    """Host memory everywhere, the card's where there is one; with a sampler beside the worker.

    Make it before torch touches the card: the idle baseline is then of a card without this worker.
    """

    def __init__(self, device: torch.device) -> None:
        on_card = device.type == "cuda"
        uuid = (_named_card() or describe(device).uuid) if on_card else None
        self.sampled = SampledMemory(uuid)
        self._cuda = TorchCudaMemory(torch.cuda) if on_card else None
        self.meters: list[MemoryMeter] = [
            HostMemory(),
            self._cuda or NoCuda(),
            self.sampled,
        ]

    def close(self, samples_file: str) -> Sampling | None:
        """End the sampler, write its samples as Parquet, and return how it sampled."""
        sampling = self.sampled.stop()
        Path(samples_file).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.sampled.samples).to_parquet(samples_file, index=False)
        return sampling

    def run_warnings(self) -> list[RunWarning]:
        """Return what the meters saw that is a reason to doubt figures."""
        retries = self._cuda.retries() if self._cuda else 0
        clipped = RunWarning(
            name="cache_retries",
            message=f"{retries} allocations had to free cached blocks first: the reserved peak was"
            " clipped by the card",
            value=retries,
            threshold=0,
        )
        return [*self.sampled.run_warnings(), *([clipped] if retries else [])]


def plain_meters(device: torch.device) -> list[MemoryMeter]:
    """Return the meters of the ledger that need no process beside the worker."""
    return [HostMemory(), TorchCudaMemory(torch.cuda) if device.type == "cuda" else NoCuda()]


def model_device(parameters: Iterable[torch.nn.Parameter]) -> str:
    """Return where a model's parameters are: `cpu`, a card's UUID, or all places, if several."""
    places = sorted({str(parameter.device) for parameter in parameters})
    return ", ".join(_place(torch.device(place)) for place in places)


def _place(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return gpu_uuid(torch.cuda.get_device_properties(device))


def _named_card() -> str | None:
    """Return the UUID under which this worker was given its card; None where it has an index.

    Asking torch would make a context on the card.
    """
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return name if name.startswith(("GPU-", "MIG-")) and "," not in name else None
