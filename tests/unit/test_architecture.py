"""The shape of the program: imports go one way, and the parent never imports torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent

# Each stage may import those above it in this list, and no other. `worker` and `cli` have rules
# of their own below. What comes first in the flow of data comes first here.
STAGES = [
    "errors",
    "units",
    "arguments",
    "profile",
    "gpus",
    "workload",
    "grid",
    "job",
    "prediction",
    "record",
    "trust",
    "messages",
    "redaction",
    "devices",
    "store",
    "engines",
    "outcome",
    "baseline",
    "benchmarks",
    "forecast",
    "runner",
    "analysis",
    "estimate",
    "frontier",
    "report",
    "progress",
    "plan",
    "claim",
    "cli",
    "pytest_plugin",
]
WORKER_MAY_IMPORT = {
    "errors",
    "units",
    "profile",
    "workload",
    "grid",
    "record",
    "messages",
    "worker",
}
PREDICT_MAY_IMPORT = WORKER_MAY_IMPORT | {"gpus", "prediction", "predict"}
HEAVY_STAGES = ("worker", "predict")
HEAVY = ("torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers")


def stage(module: str) -> str:
    return module.split(".")[1] if "." in module else "bench"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name for name in submodules if (ROOT.parent / name.replace(".", "/")).exists()}
            known |= {n for n in submodules if (ROOT.parent / f"{n.replace('.', '/')}.py").exists()}
            found.update(known or {str(node.module)})
    return found


FILES = sorted(ROOT.rglob("*.py"))


def test_every_stage_is_in_the_list():
    stages = {stage(module_name(file)) for file in FILES} - {"bench", *HEAVY_STAGES}
    assert stages == set(STAGES)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_follow_the_flow_of_data(file):
    own = stage(module_name(file))
    theirs = {stage(name) for name in imports(file) if name.split(".")[0] == "bench"} - {"bench"}
    if own == "worker":
        assert theirs <= WORKER_MAY_IMPORT
    elif own == "predict":  # the recipe's own code, traced
        assert theirs <= PREDICT_MAY_IMPORT
    elif own == "engines":  # starts the worker's entry, which is light
        assert theirs - {"worker"} <= set(STAGES[: STAGES.index(own) + 1])
        assert {name for name in imports(file) if "worker" in name} <= {"bench.worker.entry"}
    elif own not in ("bench", "pytest_plugin"):  # a plugin is a command line of its own
        assert theirs <= set(STAGES[: STAGES.index(own) + 1])


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_only_the_worker_names_heavy_packages(file):
    if stage(module_name(file)) not in HEAVY_STAGES:
        assert not {name for name in imports(file) if name.split(".")[0] in HEAVY}


def test_only_the_command_line_prints_or_exits():
    for file in FILES:
        if stage(module_name(file)) in ("cli", *HEAVY_STAGES):
            continue
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"print", "sys.exit", "exit"}, file


LIGHT = "bench.cli bench.runner bench.store bench.plan bench.progress bench.report.write"


@pytest.mark.parametrize("module", [*LIGHT.split(), "bench.worker.entry", "bench.engines.local"])
def test_the_parent_loads_no_heavy_package(module):
    code = f"import {module}, sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["bench.predict.main", "bench.plan", "bench.report.terminal"])
def test_what_is_asked_often_loads_no_more_than_it_needs(module):
    dear = ("scipy.stats", "evaluate", "altair")  # half a second each
    code = f"import {module}, sys; print(*[m for m in {dear} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
