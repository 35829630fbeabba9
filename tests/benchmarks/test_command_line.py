"""How long the command line takes to answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.report import show

FTBENCH = str(Path(sys.executable).with_name("ftbench"))
FROM_THE_CACHE_S = 1.5


def test_help(benchmark):
    benchmark.pedantic(
        subprocess.run,
        ([FTBENCH, "--help"],),
        {"check": True, "capture_output": True},
        rounds=20,
        warmup_rounds=2,
    )
    show("ftbench --help", {"median of 20": f"{benchmark.stats.stats.median * 1e3:.0f} ms"})


def test_plan(benchmark):
    benchmark.pedantic(
        subprocess.run,
        ([FTBENCH, "plan", "quick", "--no-predict"],),
        {"check": True, "capture_output": True},
        rounds=10,
    )
    figure = f"{benchmark.stats.stats.median * 1e3:.0f} ms"
    show("ftbench plan quick --no-predict", {"median of 10": figure})


def test_plan_with_predictions(benchmark):
    benchmark.pedantic(
        subprocess.run,
        ([FTBENCH, "plan", "quick"],),
        {"check": True, "capture_output": True},
        rounds=3,
    )
    show("ftbench plan quick", {"median of 3": f"{benchmark.stats.stats.median:.1f} s"})


@pytest.mark.parametrize(
    "asked", [("plan", "quick"), ("predict", "quick"), ("explain", "quick"), ("gate", "memory")]
)
def test_predictions_from_the_cache(benchmark, tmp_path, asked):
    environment = os.environ | {"FTBENCH_CACHE": str(tmp_path)}
    given = {"check": True, "capture_output": True, "env": environment}
    subprocess.run([FTBENCH, *asked], **given)
    benchmark.pedantic(subprocess.run, ([FTBENCH, *asked],), given, rounds=5)
    seconds = benchmark.stats.stats.median
    show(f"ftbench {' '.join(asked)}, again", {"median of 5": seconds, "bar": FROM_THE_CACHE_S})
    assert seconds <= FROM_THE_CACHE_S
