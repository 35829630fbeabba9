"""The meters of a worker's memory, chosen for its device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch

from ftbench.base.files import remove_link
from ftbench.records.measurement import RunWarning
from ftbench.records.readings import Sampling
from ftbench.worker.measure.device import describe, gpu_uuid
from ftbench.worker.measure.meters import MemoryMeter
from ftbench.worker.measure.meters.host import HostMemory
from ftbench.worker.measure.meters.sampled import SampledMemory
from ftbench.worker.measure.meters.torch_cuda import NoCuda, TorchCudaMemory


class MemoryMeters:
    """The meters of host memory, and of the card if the device is one; with a sampler beside the worker.

    Make it before torch touches the card, so that the idle values are those of a card without this worker.
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
        """End the sampler, write its samples as Parquet, and return its `Sampling`, None if it had ended."""
        sampling = self.sampled.stop()
        Path(samples_file).parent.mkdir(parents=True, exist_ok=True)
        remove_link(Path(samples_file))
        pd.DataFrame(self.sampled.samples).to_parquet(samples_file, index=False)
        return sampling

    def run_warnings(self) -> list[RunWarning]:
        """Return the meters' warnings."""
        retries = self._cuda.retries() if self._cuda else 0
        clipped = RunWarning(
            name="cache_retries",
            message=f"{retries} allocations had to free cached blocks first, so the peak of reserved memory"
            " was limited by the size of the card",
            value=retries,
            threshold=0,
        )
        return [*self.sampled.run_warnings(), *([clipped] if retries else [])]


def plain_meters(device: torch.device) -> list[MemoryMeter]:
    """Return the meters that need no process beside the worker."""
    return [HostMemory(), TorchCudaMemory(torch.cuda) if device.type == "cuda" else NoCuda()]


def model_device(parameters: Iterable[torch.nn.Parameter]) -> str:
    """Return the device of a model's parameters: `cpu`, a card's UUID, or a list if there are several."""
    places = sorted({str(parameter.device) for parameter in parameters})
    return ", ".join(_place(torch.device(place)) for place in places)


def _place(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return gpu_uuid(torch.cuda.get_device_properties(device))


def _named_card() -> str | None:
    """Return the UUID of this worker's card from its environment; None if that has an index instead.

    torch would make a context on the card to answer.
    """
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return name if name.startswith(("GPU-", "MIG-")) and "," not in name else None
