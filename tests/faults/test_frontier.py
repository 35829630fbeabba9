"""The frontier of a real model under a real limit: its edge is where it says."""

import csv
import os
import subprocess

from ftbench.records.run_directory import RunDirectory
from tests.integration.conftest import FTBENCH

# Two layers of MiniLM's width: a document of 128 tokens takes some ten MiB of activations.
SETTINGS = {
    "workload.weights": '"random"',
    "workload.config.num_hidden_layers": "2",
    "grid.max_length": "[128]",
    "grid.per_device_train_batch_size": "[8]",
    "grid.train_size": "[16]",
}


def frontier(folder, *arguments):
    given = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    return subprocess.run(
        [FTBENCH, "frontier", "smoke", "--out", str(folder), *given, *arguments],
        capture_output=True,
        text=True,
        env=os.environ,
    )


def test_the_edge_is_found_under_a_limit_and_does_not_move(tmp_path, reliability):
    done = frontier(tmp_path / "run", "--limit", "1200MiB", "--max-batch", "256")
    assert done.returncode == 0, done.stdout + done.stderr
    tries = {one.batch: one for one in RunDirectory(tmp_path / "run").tries()}
    (row,) = csv.DictReader((tmp_path / "run" / "frontier.csv").read_text().splitlines())
    largest = int(row["largest_batch"])
    assert 1 < largest < 256
    assert tries[largest].fits
    assert tries[largest + 1].fits is False
    assert len(tries) <= 16
    if row["limit"] == "enforced":
        assert tries[largest + 1].status == "oom"
    else:  # no control group here: the peaks were judged, and the table says so
        assert tries[largest + 1].peak_bytes > 1200 * 2**20 >= tries[largest].peak_bytes
    again = frontier(tmp_path / "run", "--limit", "1200MiB", "--max-batch", "256")
    assert again.returncode == 0
    assert len(RunDirectory(tmp_path / "run").tries()) == len(tries)
    reliability(
        "out of memory in a search for the largest batch",
        f"a limit of 1200 MiB, {row['limit']}",
        sum(one.fits is False for one in tries.values()),
        "`oom`; the edge is found",
    )
