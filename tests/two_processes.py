"""Two real processes that train together with gloo, each watched by torch's profiler.

    python -m tests.two_processes FILE RESULTS

Writes the peak of the CPU's tensors of each case and rank to RESULTS, as JSON; FILE is where the processes meet.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import distributed

from tests.cpu_peak import peak_of_steps
from tests.sharded import Run, fully_sharded, replicated

RANKS = 2
STEPS = 3
REPEATS = 3
CASES = {
    "replicated": replicated(Run()),
    "small buckets": replicated(Run(), bucket_cap_mb=0.1),
    "views": replicated(Run(), bucket_cap_mb=0.1, gradient_as_bucket_view=True),
    "static graph": replicated(Run(), bucket_cap_mb=0.1, static_graph=True),
    "checkpointing, static graph, views": replicated(
        Run(checkpointing=True, batch=4),
        bucket_cap_mb=0.1,
        static_graph=True,
        gradient_as_bucket_view=True,
    ),
    "no sync": replicated(Run(accumulation=2)),
    "fully sharded": fully_sharded(Run()),
    "not resharded": fully_sharded(Run(fsdp={"reshard_after_forward": False})),
    "sharded, checkpointing": fully_sharded(Run(checkpointing=True, batch=4)),
    "sharded, accumulation": fully_sharded(Run(accumulation=2)),
    "sharded, clipping": fully_sharded(Run(clip=1.0)),
}


def main(meeting: str, results: str) -> None:
    """Run all cases in two processes."""
    torch.multiprocessing.spawn(_rank, args=(meeting, results), nprocs=RANKS)
    found = [json.loads(Path(f"{results}.{rank}").read_text()) for rank in range(RANKS)]
    Path(results).write_text(json.dumps({case: [of[case] for of in found] for case in CASES}))


def _rank(rank: int, meeting: str, results: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    _drop_last_references_here()
    peaks = {}
    for case, factory in CASES.items():
        peaks[case] = min(_peak(factory) for _ in range(REPEATS))
    Path(f"{results}.{rank}").write_text(json.dumps(peaks))
    dist.barrier()
    dist.destroy_process_group()


def _peak(factory) -> int:
    """Return the peak of one run: it is too large if gloo's thread freed something, and never too small.

    On a busy machine gloo's thread may still hold a bucket when the Reducer rebuilds its buckets. The profiler does
    not see it freed there, so a case is run more than once and its smallest peak is taken.
    """
    dist.barrier()
    return peak_of_steps(factory, init_device_mesh("cpu", (RANKS,)), STEPS)


def _drop_last_references_here() -> None:
    """Have this thread free what gloo's thread worked on: the profiler sees frees of its own thread only.

    These are gloo's clones of what a reduce-scatter is given, the output of an all-gather, and the flat tensors of
    the first broadcast. The broadcast is left out: the ranks have the same parameters as it is.
    """
    for name in ("reduce_scatter_single", "all_gather_single"):
        setattr(dist, name, _slowly(getattr(dist, name)))
    distributed._sync_module_states = lambda *args, **kwargs: None


def _slowly(collective):
    def call(*args, **kwargs):
        work = collective(*args, **{**kwargs, "async_op": True})
        work.wait()
        time.sleep(0.03)

    return call


if __name__ == "__main__":
    main(*sys.argv[1:])
