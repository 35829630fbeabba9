"""The worker that looks at the machine: the cards that torch can use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ftbench.base.errors import WorkerError
from ftbench.records.messages import Progress
from ftbench.records.selfcheck import Machine, SelfcheckCard
from ftbench.worker.measure.device import gpu_uuid
from ftbench.worker.prepare.environment import nvidia_driver


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return the `Machine` as JSON data; raises WorkerError if torch can use no card."""
    if not torch.cuda.is_available():
        raise WorkerError(
            "there is a card, but this torch cannot use it",
            where="selfcheck",
            got=f"torch {torch.__version__}, built for CUDA {torch.version.cuda}",
            hint="install a CUDA build of torch that the driver supports",
        )
    cards = tuple(_card(number) for number in range(torch.cuda.device_count()))
    made = Machine(cards=cards, cuda=torch.version.cuda, driver=nvidia_driver())
    return made.model_dump(mode="json")


def _card(number: int) -> SelfcheckCard:
    properties = torch.cuda.get_device_properties(number)
    return SelfcheckCard(
        name=properties.name,
        uuid=gpu_uuid(properties),
        compute_capability=(properties.major, properties.minor),
        multiprocessors=properties.multi_processor_count,
        total_memory_bytes=properties.total_memory,
    )
