"""What the harness adds to a training step: interleaved with a bare Trainer, as a ratio of medians."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from rich.console import Console

from ftbench.cli.progress import RunDisplay
from ftbench.execute.engines.local import LocalEngine
from ftbench.execute.runner import CELL, Runner
from ftbench.plan.devices import Placement
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import build_profile
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.run_directory import RunDirectory
from tests.benchmarks.report import show
from tests.engines import InstantEngine

PAIRS = 10  # fresh processes: where their memory lies alone moves a step by 1-2 %
STEPS = 45  # a side and pair
WARM_UP = 10  # of these, left out on both sides
LENGTH, BATCH = 64, 8
LIMIT = 1.01


class BatonEngine(InstantEngine):
    """Runs the real worker with a baton in it, and a bare Trainer beside it; they take turns.

    Which side has the first step alternates from pair to pair.
    """

    def __init__(self, folder: Path) -> None:
        self._environment = dict(Placement(kind="cpu").environment)
        self._folder = folder
        self.pairs: list[tuple[list[float], list[float]]] = []

    def _local(self):
        return LocalEngine("forkserver", self._environment)

    def run(self, module, request, **options):
        if module != CELL:
            return self._local().run(module, request, **options)
        pair = self._folder / f"pair{len(self.pairs)}"
        pair.mkdir()
        for side in ("harness", "bare"):
            os.mkfifo(pair / side)
        first = "harness" if len(self.pairs) % 2 == 0 else "bare"
        self._environment |= {"FTBENCH_BATON": str(pair), "FTBENCH_BATON_FIRST": first}
        body = json.loads(request)
        (train,) = (pools["train"] for pools in body["preparation"]["tokenised"].values())
        command = [sys.executable, "-m", "tests.benchmarks.bare_trainer"]
        command += [body["cell"]["model"]["source"]["location"], train]
        command += [str(STEPS * BATCH), str(BATCH), str(body["seed"]), str(pair), first]
        with (pair / "bare.log").open("w") as log:
            bare = subprocess.Popen(command, stdout=log, stderr=log)
            threading.Thread(
                target=end_the_wait, args=(bare, pair / "harness"), daemon=True
            ).start()
            outcome = self._local().run("tests.benchmarks.baton_cell", request, **options)
            assert outcome.answer is not None, outcome.log_tail
            assert bare.wait(60) == 0, (pair / "bare.log").read_text()
        seconds = [json.loads((pair / f"{side}.json").read_text()) for side in ("harness", "bare")]
        self.pairs.append((seconds[0][WARM_UP:], seconds[1][WARM_UP:]))
        return outcome


def end_the_wait(bare, fifo):
    """Hand the baton back for good where the bare process dies: the test fails, not hangs."""
    if bare.wait() != 0:
        with fifo.open("wb") as stream:
            stream.write(b"." * STEPS)


def ratio_of_medians(pairs):
    """Return the ratio of the medians of all first to all second members."""
    return float(
        np.median(np.concatenate([a for a, _ in pairs]))
        / np.median(np.concatenate([b for _, b in pairs]))
    )


def bootstrap_interval(pairs, draws=2000, seed=0):
    """Return the 95 % percentile interval: pairs are drawn anew, then the steps within each."""
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        drawn = [pairs[i] for i in generator.integers(len(pairs), size=len(pairs))]
        ratios.append(
            ratio_of_medians([[generator.choice(x, len(x)) for x in pair] for pair in drawn])
        )
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def test_a_step_inside_the_harness_takes_as_long_as_in_a_bare_trainer(benchmark, tmp_path):
    workload = {"model": "offline:minilm-l6", "dataset": "offline:imdb", "eval_size": 8}
    block = {"max_length": [LENGTH], "per_device_train_batch_size": [BATCH]}
    data = {
        "name": "overhead",
        "workload": workload,
        "grid": [block | {"train_size": [STEPS * BATCH]}],
        "run": {"replicates": PAIRS, "cpu_tensors": False},
        "training": {"num_train_epochs": 1, "save_strategy": "no", "eval_strategy": "no"},
    }
    profile = build_profile(data, where="overhead")
    grid = expand(profile, resolve_model(profile.workload), resolve_data(profile.workload))
    engine = BatonEngine(tmp_path)

    def interleaved():
        console = Console(file=io.StringIO(), force_terminal=True)  # the live display runs too
        with RunDisplay(console, ["max_length"]) as display:
            directory = RunDirectory.create(tmp_path / "run")
            device = Placement(kind="cpu")
            return Runner(profile, grid, directory, engine, device, display).run()

    records = benchmark.pedantic(interleaved, rounds=1)
    assert all(record.status == "ok" for record in records)
    harness, bare = (np.concatenate([pair[side] for pair in engine.pairs]) for side in (0, 1))
    assert min(harness.size, bare.size) >= 300
    ratio = ratio_of_medians(engine.pairs)
    low, high = bootstrap_interval(engine.pairs)
    parent = os.times()
    benchmark.extra_info.update(ratio=ratio, low=low, high=high, steps=harness.size)
    show(
        "Step time inside the harness against a bare Trainer",
        {
            "interleaved steps a side": f"{harness.size} in {PAIRS} pairs of processes",
            "median inside the harness": f"{np.median(harness) * 1e3:.1f} ms",
            "median in a bare Trainer": f"{np.median(bare) * 1e3:.1f} ms",
            "ratio of medians": f"{ratio:.4f} (95 % interval {low:.4f} to {high:.4f})",
            "ratio in each pair": ", ".join(f"{ratio_of_medians([p]):.3f}" for p in engine.pairs),
            "CPU seconds of this parent": f"{parent.user + parent.system:.1f}",
        },
    )
    assert low <= LIMIT, "the harness slows the step that it measures"
