"""The worker that starts two processes which train together, one per card, and gathers what each measured."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from ftbench.base.errors import WorkerError
from ftbench.records.messages import Progress
from ftbench.records.selfcheck import Measured, RanksMeasured, RanksRequest
from ftbench.worker.selfcheck.measure import read_meters
from ftbench.worker.selfcheck.programs import replicated, sharded

RANKS = 2
_NOTHING = {"requested_bytes": 0, "allocated_bytes": 0, "reserved_bytes": 0}


def main(body: dict[str, Any], emit: Callable[[Progress], None]) -> dict[str, Any]:
    """Return `RanksMeasured` for a `RanksRequest`; raises WorkerError if a process ends without a result."""
    request = RanksRequest.model_validate(body)
    context = multiprocessing.get_context("spawn")
    processes = []
    for rank in range(RANKS):
        if request.device == "cuda":  # each is shown its own card, before it starts
            os.environ["CUDA_VISIBLE_DEVICES"] = request.uuids[rank]
        processes.append(context.Process(target=run_rank, args=(body, rank)))
        processes[-1].start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    if any(codes):
        raise WorkerError("a rank ended with an error", got=f"exit codes {codes}")
    files = [_file(request, rank) for rank in range(RANKS)]
    ranks = tuple(Measured.model_validate_json(file.read_bytes()) for file in files)
    return RanksMeasured(ranks=ranks).model_dump(mode="json")


def run_rank(body: dict[str, Any], rank: int) -> None:
    """Train as one rank, and write what it measured."""
    request = RanksRequest.model_validate(body)
    device = torch.device("cuda", 0) if request.device == "cuda" else torch.device("cpu")
    store = f"file://{Path(request.folder) / 'store'}"
    backend = "nccl" if request.device == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=store, rank=rank, world_size=RANKS)
    step, result = _made(request, device), None
    for _ in range(request.steps):
        result = step()  # kept until the next one returns, as in a prediction
    assert result is not None
    loss = float(result)
    if request.device == "cuda":
        torch.cuda.synchronize()
        found = read_meters(device, loss, fits=True)
    else:
        found = Measured(**_NOTHING, loss=loss)
    _file(request, rank).write_text(found.model_dump_json())
    distributed.destroy_process_group()


def _made(request: RanksRequest, device: torch.device) -> Callable[[], torch.Tensor]:
    if request.strategy == "ddp":
        return replicated(device)
    mesh = distributed.device_mesh.init_device_mesh(device.type, (RANKS,))
    return sharded(device, mesh)


def _file(request: RanksRequest, rank: int) -> Path:
    return Path(request.folder) / f"rank-{rank}.json"
