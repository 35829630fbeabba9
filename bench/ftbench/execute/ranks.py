"""Ranks: the processes of a cell that trains on several devices. What can be run, the request, who is waited for.

The engine starts one worker, which launches the ranks (`ftbench.worker.launch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ftbench.base.errors import ProfileError
from ftbench.plan.cell import Cell
from ftbench.plan.devices import Placement
from ftbench.records.messages import LaunchRequest, RankPosition, WorkspaceRequest, of_rank

LAUNCH = "ftbench.worker.launch.main"
_SHARDED = ("fsdp2", "fsdp1")


def require_devices(cells: Iterable[Cell], device: Placement) -> None:
    """Raise ProfileError if a cell of several processes cannot be run on a machine's devices.

    accelerate 1.15 shards a model on cards only (`AcceleratorState.__init__`): on the CPU it would train with
    DistributedDataParallel, and say nothing.
    """
    for cell in cells:
        if cell.num_processes == 1:
            continue
        if device.kind == "cpu" and cell.strategy in _SHARDED:
            raise ProfileError(
                "accelerate shards a model on cards only; on the CPU it would train with DistributedDataParallel",
                where="parallel.strategy",
                got=cell.strategy,
                expected="ddp or zero1",
                hint="ftbench predict",
            )
        if device.kind == "cuda" and cell.num_processes > len(device.devices):
            raise ProfileError(
                "more processes than cards",
                where="num_processes",
                got=str(cell.num_processes),
                expected=f"at most {len(device.devices)}, the cards that are visible",
                hint="ftbench predict",
            )


def require_one_process(cells: Iterable[Cell], verb: str) -> None:
    """Raise ProfileError for a cell of several processes, by the name of the verb that does not run it."""
    for cell in cells:
        if cell.num_processes > 1:
            raise ProfileError(
                f"{verb} has cells of one process only",
                where="num_processes",
                got=str(cell.num_processes),
                expected="1",
            )


def launch_of(
    module: str, request: WorkspaceRequest, cell: Cell, device: Placement, name: str
) -> LaunchRequest:
    """Return the request that runs another one in all processes of a cell; `name` is that of the log."""
    return LaunchRequest(
        workspace=request.workspace,
        module=module,
        request=request.model_dump(mode="json"),
        processes=cell.num_processes,
        devices=device.devices[: cell.num_processes],
        log=f"logs/{name}.log",
    )


def rank_logs(log: Path, processes: int) -> tuple[Path, ...]:
    """Return the logs of the ranks, beside that of their launcher; none of a single process."""
    if processes == 1:
        return ()
    return tuple(log.with_name(of_rank(log.name, rank)) for rank in range(processes))


def rank_behind(positions: Sequence[RankPosition]) -> int | None:
    """Return the one rank that the others wait for, which has begun fewer collectives; None without such a rank.

    Ranks must begin the same collectives in the same order, and each waits in one that it has begun.
    """
    counts = [-1 if at.collectives is None else at.collectives for at in positions]
    least = min(counts, default=0)
    if counts.count(least) != 1 or len(counts) == 1:
        return None
    return counts.index(least)
