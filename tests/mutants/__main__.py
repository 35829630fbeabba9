"""Mutation tests with mutmut: `python -m tests.mutants [MODULE ...]`; `nox -s mutants` makes the environment.

Each module is mutated in a copy of the tree in a temporary folder, and each mutant is tried against the unit
tests that mirror its module. Not mutated: sentences (strings with a space), constants and defaults outside
functions, and functions with a decorator (so every property).
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.mutants.equivalent import EQUIVALENT

ROOT = Path(__file__).parents[2]
SEED = 0
# A zip's `strict=True` is a guard against lengths that are equal by construction: no test sees it go.
_GUARD = re.compile(r"strict=\w+|[\s,]")


class Subject(NamedTuple):
    """What is mutated, the tests that judge it, and those of them that take seconds for each mutant."""

    sources: str
    tests: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    at_most: int = 2000  # mutants, so that it takes less than half an hour on two cores


MODULES = {
    "records": Subject("records/*", ("tests/unit/records",)),
    "gate": Subject("gating/*", ("tests/unit/gating",)),
    "prediction/simulate": Subject("prediction/simulate/*", ("tests/unit/prediction/simulate",)),
    "prediction/shapes": Subject(
        "prediction/shapes/*",
        ("tests/unit/prediction/shapes",),
        # They trace a real model.
        (
            "test_a_model_at_any_shape_is_its_own_trace_event_by_event",
            "test_the_peak_at_any_shape_is_that_of_the_events",
            "test_the_template_is_not_touched",
        ),
    ),
    "analysis/fits": Subject(
        "analysis/fits/*",
        ("tests/unit/analysis/fits",),
        # They simulate hundreds of data sets.
        (
            "test_what_all_runs_of_a_cell_share_is_not_averaged_away_by_repeats",
            "test_intervals_hold_one_more_run_as_often_as_they_say",
            "test_whole_fits_hold_one_more_run_and_are_no_wider_than_need_be",
            "test_intervals_hold_the_truth_as_often_as_they_say",
        ),
        at_most=1500,  # of 3,000: its fits take their time
    ),
    "execute/runner": Subject("execute/runner.py", ("tests/unit/execute/test_runner.py",)),
}

PYPROJECT = """\
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/ftbench/{sources}"]
also_copy = ["profiles", "reports"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = {arguments}
timeout_multiplier = 3.0
timeout_constant = 2.0
track_dependencies = false
use_git_change_detection = false

[tool.pytest.ini_options]
markers = ["gpu: ", "integration: "]
"""


def main(arguments):
    """Print `module: killed / all (percent)` per module, then its survivors."""
    parser = argparse.ArgumentParser("nox -s mutants --", description=__doc__)
    names = ", ".join(MODULES)
    parser.add_argument("module", nargs="*", choices=[[], *MODULES], metavar="MODULE", help=names)
    parser.add_argument("--at-most", type=int, help="mutants per module, drawn by a fixed seed")
    parser.add_argument(
        "--folder", type=Path, help="keep the copies here; a second run goes on with the first"
    )
    parser.add_argument(
        "--again", action="store_true", help="with --folder: try its survivors again"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ftbench-mutants-") as temporary:
        for module in options.module or MODULES:
            folder = (options.folder or Path(temporary)).resolve() / module.replace("/", "-")
            _run(MODULES[module], folder, options)
            _print(module, json.loads((folder / "results.json").read_text()))
    return 0


def _run(subject, folder, options):
    """Leave `results.json` in the folder."""
    _copy(subject, folder)
    _mutmut(folder, "names")
    names = json.loads((folder / "names.json").read_text())
    at_most = options.at_most or subject.at_most
    if len(names) > at_most:
        print(f"{at_most} of {len(names)} mutants, drawn with seed {SEED}", flush=True)
        names = sorted(random.Random(SEED).sample(names, at_most))
    _mutmut(folder, "results")
    tried = json.loads((folder / "results.json").read_text())
    wanted = (None, 0, 33) if options.again else (None,)
    open_ = {one["name"] for one in tried if one["code"] in wanted}
    if left := [name for name in names if name in open_]:
        _mutmut(folder, "run", "--max-children", str(options.processes), *left)
    _mutmut(folder, "results")


def _copy(subject, folder):
    """Copy sources and tests, keeping times, so that a second run mutates only what has changed."""
    ignore = shutil.ignore_patterns("__pycache__")
    for source, target in (
        ("bench/ftbench", "src/ftbench"),
        ("tests", "tests"),
        ("profiles", "profiles"),
        ("reports/baselines", "reports/baselines"),
    ):
        shutil.copytree(ROOT / source, folder / target, dirs_exist_ok=True, ignore=ignore)
    left_out = (
        ["-k", " and ".join(f"not {name}" for name in subject.left_out)] if subject.left_out else []
    )
    filled = PYPROJECT.format(
        sources=subject.sources,
        tests=json.dumps(subject.tests),
        arguments=json.dumps(["-p", "no:cacheprovider", *left_out]),
    )
    (folder / "pyproject.toml").write_text(filled)


def _mutmut(folder, *arguments):
    """Run mutmut in the folder; its output is in `mutmut.log`."""
    # The copy comes first, before an editable install of the checkout. Threads do not survive a fork.
    paths = os.pathsep.join(str(folder / "mutants" / name) for name in ("src", "."))
    environment = os.environ | {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", str(ROOT / "tests/mutants/mutate.py"), *arguments]
    log = folder / "mutmut.log"
    with log.open("a") as output:
        ended = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output)
    if ended.returncode:
        sys.exit(f"mutmut {arguments[0]} ended with {ended.returncode}:\n{log.read_text()[-3000:]}")


def _print(module, results):
    survivors = []
    killed = equivalent = 0
    for one in results:
        if one["code"] is None:
            continue
        if one["code"] not in (0, 33):
            killed += 1
            continue
        place = one["file"].removeprefix("src/ftbench/")
        before, after, line = _change(one)
        same = _GUARD.sub("", before) == _GUARD.sub("", after)
        if same or (place, before, after) in EQUIVALENT:
            equivalent += 1
        else:
            survivors.append(f"{place}:{line}\n  - {before}\n  + {after}")
    tried = killed + len(survivors)
    percent = f"{100 * killed / tried:.1f} %" if tried else "none"
    print(f"{module}: {killed} / {tried} ({percent}); {equivalent} equivalent ones left out")
    for survivor in survivors:
        print(survivor, flush=True)


def _change(one):
    """Return the line as it is, as it is mutated, and its number in the file."""
    lines = one["diff"].splitlines()
    before = " ".join(line[1:].strip() for line in lines[2:] if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in lines[2:] if line.startswith("+"))
    start = int(re.match(r"@@ -(\d+)", lines[2]).group(1))
    offset = next(number for number, line in enumerate(lines[3:]) if line[0] in "+-")
    return before, after, one["line"] + start - 1 + offset


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
