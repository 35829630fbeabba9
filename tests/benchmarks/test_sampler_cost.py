"""What the sampler beside a worker adds to a training step: halted and let run in turns.

Both sides are steps of one process with one layout of memory; only the sampler is stopped
(SIGSTOP) during one half of them. A select() that is stopped goes on with the time it had left, so
the running half bears what it would bear if there were no halts.
"""

import os
import signal
import time

import numpy as np
import torch

from ftbench.worker.measure.meters.sampled import SampledMemory
from tests.benchmarks.report import show
from tests.benchmarks.test_step_overhead import bootstrap_interval, ratio_of_medians

BLOCKS = 200  # pairs of a running and a halted block
STEPS = 4  # a block
WARM_UP = 20
WIDTH, LAYERS, BATCH = 1024, 6, 96
BALLAST = 512 * 2**20  # page tables that a real worker's PSS is summed over
LIMIT = 1.01


def training_step():
    """Return a function that makes one optimizer step of a small network."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    batch = torch.randn(BATCH, WIDTH)

    def step():
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()

    return step


def time_block(step):
    """Return the seconds of each step of a block."""
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds


def interleave(step, pid):
    """Return pairs of the step times with the sampler running and halted; the order alternates."""
    pairs = []
    for block in range(BLOCKS):
        sides = {}
        for running in (True, False) if block % 2 else (False, True):
            os.kill(pid, signal.SIGCONT if running else signal.SIGSTOP)
            sides[running] = time_block(step)
        pairs.append((np.array(sides[True]), np.array(sides[False])))
    os.kill(pid, signal.SIGCONT)
    return pairs


def test_sampling_does_not_slow_the_step_that_it_is_beside(benchmark):
    ballast = torch.ones(BALLAST, dtype=torch.uint8)
    meter = SampledMemory()
    meter.idle()
    step = training_step()
    for _ in range(WARM_UP):
        step()
    meter.start("train")
    pairs = benchmark.pedantic(interleave, args=(step, meter.pid), rounds=1)
    peak = meter.read()["peak_pss_bytes"]
    sampling = meter.stop()
    assert sampling is not None
    assert peak > ballast.numel()
    running, halted = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    ratio = ratio_of_medians(pairs)
    low, high = bootstrap_interval(pairs)
    share = sampling.cpu_s / running.sum()
    benchmark.extra_info.update(ratio=ratio, low=low, high=high, cpu_share=share)
    show(
        "Step time beside a running sampler against a halted one",
        {
            "interleaved steps a side": f"{running.size} in {BLOCKS} pairs of blocks",
            "median beside a running one": f"{np.median(running) * 1e3:.2f} ms",
            "median beside a halted one": f"{np.median(halted) * 1e3:.2f} ms",
            "ratio of medians": f"{ratio:.4f} (95 % interval {low:.4f} to {high:.4f})",
            "ratio of means": f"{running.mean() / halted.mean():.4f}",
            "PSS of the process": f"{peak / 2**20:.0f} MiB",
            "sampler's period": f"{sampling.period_s / 2:.2f} s of running ({sampling.samples} samples)",
            "sampler's share of a processor": f"{share:.2%} while running",
            "cost of a sample": f"{sampling.cpu_s / sampling.samples * 1e3:.1f} ms",
        },
    )
    assert ratio <= LIMIT, "sampling slows the step that it is beside"
