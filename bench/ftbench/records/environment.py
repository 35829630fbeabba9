"""Environment: the packages and the hardware that figures depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field

from ftbench.base.frozen import FrozenModel


class Device(FrozenModel):
    """The one device that a cell ran on."""

    kind: Literal["cpu", "cuda"] = Field(description="A processor or a card.")
    name: str = Field(description="The model of the processor or the card.")
    uuid: str | None = Field(None, description="The card's UUID.")
    total_memory_bytes: int | None = Field(None, description="Memory of the device, in bytes.")
    threads: int | None = Field(None, description="Threads that torch computes with on a CPU.")


class Environment(FrozenModel):
    """Packages, hardware and driver that figures depend on; recorded apart from the cells."""

    python: str = Field(description="The version of Python.")
    platform: str = Field(description="The operating system and its version.")
    packages: dict[str, str] = Field(description="Versions of the packages of a run, by name.")
    cpu: str = Field(description="The model of the processor.")
    cores: int = Field(description="Logical processors of the machine.")
    memory_bytes: int = Field(description="RAM of the host, in bytes.")
    device: Device = Field(description="The device that cells ran on.")
    driver: str | None = Field(None, description="The version of the card's driver.")
    cuda: str | None = Field(None, description="The version of CUDA that torch was built with.")
    variables: dict[str, str] = Field(
        default_factory=dict, description="Variables that were set and change allocation, by name."
    )
    git_commit: str | None = Field(
        None, description="The commit of the folder that the command ran in."
    )

    @property
    def environment_id(self) -> str:
        """Return a hash that is equal for equal environments; the commit is not part of it."""
        # Older environments have no variables: without any, the hash stays the same.
        left_out = {"git_commit"} | ({"variables"} if not self.variables else set())
        text = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
