"""Real runs through the command line, shared by the tests that look at them."""

import dataclasses
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest

from ftbench.records.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
FTBENCH = str(Path(sys.executable).with_name("ftbench"))
# A model so small that a cell takes a second or two.
SMALL = {
    "workload.weights": "random",
    "workload.config.num_hidden_layers": "1",
    "workload.config.hidden_size": "32",
    "workload.config.num_attention_heads": "2",
    "workload.config.intermediate_size": "32",
}


@dataclasses.dataclass
class Run:
    """What a command left: its process, its run directory, and the records in it."""

    process: subprocess.CompletedProcess
    directory: RunDirectory

    @property
    def records(self):
        return self.directory.records()

    @property
    def cells(self):
        return pd.read_csv(self.directory.path / "cells.csv")

    def steps(self, record):
        return pd.read_parquet(
            self.directory.file("steps", f"{record.cell_id}-r{record.replicate}", ".parquet")
        )


def some_long(cases, every=2):
    """Return the cases of a test, all but one of `every` marked as long: `nox -s tests` leaves those out."""
    return [
        case if place % every == 0 else pytest.param(*_as_tuple(case), marks=pytest.mark.long)
        for place, case in enumerate(cases)
    ]


def _as_tuple(case):
    return case if isinstance(case, tuple) else (case,)


def ftbench(*arguments, **options):
    return subprocess.run(
        [FTBENCH, *map(str, arguments)], capture_output=True, text=True, **options
    )


def run(profile, out, *arguments, **settings):
    """Run a profile with settings as `--set`, dots written as double underscores."""
    given = [
        text
        for name, value in settings.items()
        for text in ("--set", f"{name.replace('__', '.')}={value}")
    ]
    done = ftbench("run", profile, "--out", out, *given, *arguments)
    return Run(done, RunDirectory(out))


@pytest.fixture(scope="session")
def wheel_python(tmp_path_factory):
    """The Python of an environment that has the wheel; what the wheel depends on is lent from ours."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("ftbench-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    # A path that a .pth file adds has its own .pth files unread: the editable install is not seen.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """Keep what these runs tokenise out of the user's cache."""
    folder = tmp_path_factory.mktemp("datasets")
    before = os.environ.get("HF_DATASETS_CACHE")
    os.environ["HF_DATASETS_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["HF_DATASETS_CACHE"]
    else:
        os.environ["HF_DATASETS_CACHE"] = before


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke profile from start to end, the checkpoints of one cell kept."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    kept = '["max_length=16,train_size=16"]'
    return run("smoke", folder, run__keep_checkpoints=kept)
