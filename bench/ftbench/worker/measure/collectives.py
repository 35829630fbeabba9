"""Time in collectives, as DistributedDataParallel measures it itself, in its C++ Reducer.

It marks the launch of the first all-reduce of a backward pass, the end of the pass, and the end of the last
all-reduce (torch/csrc/distributed/c10d/logger.cpp), for the first ten steps and then for every hundredth.
"""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from ftbench.records.collectives import Collectives

_NS_PER_S = 1e9


def time_every_step(model: DistributedDataParallel) -> None:
    """Have the Reducer time every step; not on a card, where reading a time waits for the card."""
    if model.device_type == "cpu":
        model._set_ddp_runtime_logging_sample_rate(1)


def collectives_of(model: torch.nn.Module | None) -> Collectives | None:
    """Return the mean times of the steps so far; None without DistributedDataParallel, or before it had a step."""
    if not isinstance(model, DistributedDataParallel):
        return None
    times = model._get_ddp_logging_data()
    whole = times.get("avg_backward_comm_time", 0)
    beside = times.get("avg_backward_compute_comm_overlap_time", 0)
    if whole <= 0:
        return None
    return Collectives(seconds=whole / _NS_PER_S, exposed_s=max(0, whole - beside) / _NS_PER_S)
