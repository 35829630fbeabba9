"""ZeRO-1: each process keeps a part of the optimizer's states, and sends the parameters that it has updated.

Stage 1 of ZeRO (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054), as torch has it beside
DistributedDataParallel: whole parameters go to the process that has least so far, the largest first. Here the first
process has the largest share and the last the smallest, as with the other strategies.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from transformers import Trainer


def with_sharded_optimizer(trainer: Trainer) -> None:
    """Let a Trainer make its optimizer as a `ZeroRedundancyOptimizer` of the class that it would make."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    class Sharded(ZeroRedundancyOptimizer):
        def state_dict(self) -> dict[str, Any]:
            """Return the groups, and no states: accelerate asks before the first step, and none is saved.

            torch's own would first have to gather all states in one process (`consolidate_state_dict`).
            """
            return Optimizer.state_dict(self)

        def _partition_parameters(self, params_per_rank: Any = None) -> list[list[dict[str, Any]]]:
            """Return the groups of each process: torch's shares, the largest first."""
            shares: Any = super()._partition_parameters(params_per_rank)  # type: ignore[misc]
            shares.sort(
                key=_elements, reverse=True
            )  # torch keeps the list; no other has been made of it yet
            return list(shares)

    model: Any = trainer.model
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
    trainer.optimizer_cls_and_kwargs = Sharded, {"optimizer_class": kind, **options}


def _elements(groups: list[dict[str, Any]]) -> int:
    return sum(parameter.numel() for group in groups for parameter in group["params"])
