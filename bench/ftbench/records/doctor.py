"""Doctor: the facts about a machine on which it depends what can be measured and predicted there. Plain data."""

from __future__ import annotations

from typing import Literal

from ftbench.base.frozen import FrozenModel

# fine      all figures that depend on it are there
# limited   some are missing, or are worth less
# missing   none of them is there
State = Literal["fine", "limited", "missing"]


class CardFacts(FrozenModel):
    """A card that torch can use, and the driver's figures of it while this process has a context on it, in bytes.

    A figure that the driver does not give is None; `absent` has the driver's reasons by the name of the figure.
    """

    name: str
    total_memory_bytes: int
    device_bytes: int | None
    process_bytes: int | None
    tells_clocks: bool
    tells_energy: bool
    absent: dict[str, str] = {}  # noqa: RUF012  (a default of a frozen model, copied for each)


class TorchFacts(FrozenModel):
    """What a worker finds: its cards, torch's threads, and why it cannot read the peak of host memory, if so."""

    version: str
    cuda: str | None
    cards: tuple[CardFacts, ...]
    threads: int
    host_memory_absent: str | None = None
    variables: dict[str, str] = {}  # noqa: RUF012  (as above)


class TorchRequest(FrozenModel):
    """Asks a worker what torch can use and read here."""


class DriverFacts(FrozenModel):
    """NVIDIA's driver through NVML: its version and cards; or the reason that it cannot be asked."""

    version: str | None = None
    cards: int = 0
    absent: str | None = None


class GroupFacts(FrozenModel):
    """The control groups of this process: their limits, and why no group can be made for a run, if so."""

    limit_bytes: int | None = None
    processors: float | None = None
    absent: str | None = None


class FolderFacts(FrozenModel):
    """A folder that ftbench or its libraries write to; `refused` is the reason that it cannot be written."""

    purpose: str
    path: str
    free_bytes: int | None = None
    refused: str | None = None


class MachineFacts(FrozenModel):
    """All that `ftbench doctor` looks at. `torch_absent` is the reason that a worker found nothing."""

    ftbench: str
    packages: dict[str, str | None]  # versions; None of a package that is missing
    torch: TorchFacts | None
    torch_absent: str | None
    driver: DriverFacts
    hidden_cards: bool  # CUDA_VISIBLE_DEVICES leaves none
    processors: int  # that this process may run on
    load: float  # processes that ran or waited, over the last minute
    memory_bytes: int
    group: GroupFacts
    variables: dict[str, str]  # of torch's CUDA allocator and cuBLAS, that are set
    folders: tuple[FolderFacts, ...]
    offline: bool  # the hub may not be asked
    browser: str | None
    calibrated: tuple[str, ...]  # the devices of calibrations here
    device: str  # the name of the processor


class Finding(FrozenModel):
    """One row of the diagnosis: what was found, what it means for the figures, and how to mend it."""

    name: str
    state: State
    found: str
    meaning: str
    mend: str | None = None
