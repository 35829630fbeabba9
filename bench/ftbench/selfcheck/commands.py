"""Rows that are commands: a calibration of the card, and the tests of the repository that need one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ftbench
from ftbench.records.calibration_files import read_calibrations
from ftbench.records.selfcheck import CheckedFigure, RowAnswer
from ftbench.selfcheck.rows import Row
from ftbench.selfcheck.setting import Setting

_TESTS = "tests/integration/test_gpu.py"
_COUNT = re.compile(r"(\d+) (passed|failed|error|errors|skipped)\b")
_NO_TESTS = 5  # pytest's exit code if nothing was collected


def check(row: Row, setting: Setting) -> RowAnswer:
    """Return how the row's command ended, and its figures."""
    return _calibrated(setting) if row.kind == "calibrate" else _tested(setting)


def _calibrated(setting: Setting) -> RowAnswer:
    folder = setting.folder / "calibration"
    command = ["-m", "ftbench", "calibrate", "--quick", "--no-cells", "--out", str(folder)]
    done = _run([*command, "--device", setting.card.uuid], setting)
    found = read_calibrations(folder)
    if done.returncode or not found:
        return RowAnswer(
            status="failed", reason=f"ftbench calibrate ended with exit code {done.returncode}"
        )
    one = found[0]
    rates = {
        dtype: max(
            2 * row.batch * row.m * row.n * row.k / row.seconds
            for row in one.products
            if row.dtype == dtype
        )
        for dtype in dict.fromkeys(row.dtype for row in one.products)
    }
    figures = [
        CheckedFigure(name=f"TFLOP/s, {dtype}", unit="count", measured=rate / 1e12)
        for dtype, rate in rates.items()
    ]
    context = CheckedFigure(name="CUDA context", unit="byte", measured=one.card.context_bytes)
    return RowAnswer(status="ok", figures=(*figures, context), send=("calibration",))


def _tested(setting: Setting) -> RowAnswer:
    """Return how the tests ended that need a card; left out if there is no repository around ftbench."""
    root = Path(ftbench.__file__).resolve().parents[2]
    if not (root / _TESTS).is_file():
        return RowAnswer(status="left out", reason="the tests are in the repository, not installed")
    if not Path(sys.executable).with_name("ftbench").is_file():
        return RowAnswer(
            status="left out", reason="the tests start the program, not installed here"
        )
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", _TESTS]
    done = _run(command, setting, root)
    sys.stdout.write(done.stdout)
    counts = {name: int(count) for count, name in _COUNT.findall(done.stdout)}
    figures = tuple(
        CheckedFigure(name=name, unit="count", measured=count) for name, count in counts.items()
    )
    if done.returncode == 0 and counts.get("passed"):
        return RowAnswer(status="ok", figures=figures)
    if done.returncode == _NO_TESTS:
        return RowAnswer(status="failed", reason="pytest found no test that needs a card")
    return RowAnswer(
        status="failed", reason=f"pytest ended with exit code {done.returncode}", figures=figures
    )


def _run(
    arguments: list[str], setting: Setting, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Return the end of a Python command on the card, with its output; the row's limit ends it."""
    environment = os.environ | setting.placement.environment | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stdout.write(done.stdout)
        sys.stdout.write(done.stderr)
    return done
