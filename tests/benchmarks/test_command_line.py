"""How long the command line takes to answer."""

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.report import show

FTBENCH = str(Path(sys.executable).with_name("ftbench"))


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
