"""The process beside a worker that samples memory for which nobody keeps a peak: NVML and PSS.

`python -m ftbench.worker.measure.sampler PID [--uuid UUID] [--pss] [--period-floor-s S]` is started by the
worker (`ftbench.worker.measure.meters.sampled`). It is a process and not a thread, so that it neither holds
the training process's GIL nor adds to its memory; it imports nothing large. Each line of its
stdin is a JSON object with a `command`, answered by one JSON line on stdout:

    idle   read once now; with a card, after its memory has become constant
    start  begin new peaks for `phase`, and sample from now on
    read   sample once more now, so that even the shortest phase has a figure; answer the peaks
    stop   answer the totals and the samples, and end

It ends with the worker: by the kernel's signal, and when its stdin ends.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from collections.abc import Callable, Sequence

from ftbench.worker.measure.sampler.card_memory import CardMemory
from ftbench.worker.measure.sampler.sampler import Sampler
from ftbench.worker.measure.sampler.tree_memory import TreeMemory
from ftbench.worker.process.lifeline import die_with_parent


def serve(sampler: Sampler, source: int, say: Callable[[str], object]) -> None:
    """Answer commands and take samples until `stop`, or until the worker has ended."""
    pending = b""
    while True:
        ready, _, _ = select.select([source], [], [], sampler.wait_s())
        if not ready:
            sampler.sample_due()
            continue
        chunk = os.read(source, 65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            command = json.loads(line)
            say(json.dumps(sampler.answer(command)) + "\n")
            if command["command"] == "stop":
                return


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample the memory of one worker until it stops this process."""
    parser = argparse.ArgumentParser("ftbench.worker.measure.sampler")
    parser.add_argument("pid", type=int, help="the worker, which started this process")
    parser.add_argument("--uuid", help="the card that it uses")
    parser.add_argument("--pss", action="store_true", help="sample PSS of its process tree")
    parser.add_argument("--period-floor-s", type=float, default=0.0, help="sample no more often")
    options = parser.parse_args(arguments)
    die_with_parent(options.pid)
    card = None
    if options.uuid:
        from ftbench.worker.measure.meters.nvml import (
            NvmlCard,  # only here: ctypes and a large module
        )

        card = CardMemory(NvmlCard(options.uuid, options.pid))
    tree = TreeMemory(options.pid, leave_out=os.getpid()) if options.pss else None
    sampler = Sampler(tree, card, period_floor_s=options.period_floor_s)

    def say(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    serve(sampler, sys.stdin.fileno(), say)


if __name__ == "__main__":
    main()
