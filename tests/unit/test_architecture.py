"""The shape of the program, where import-linter (`nox -s lint`) cannot see it."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import ftbench

ROOT = Path(ftbench.__file__).parent
HEAVY = ("torch", "transformers", "datasets", "evaluate", "accelerate", "tokenizers")
LIGHT = (
    "ftbench.cli",
    "ftbench.cli.progress",
    "ftbench.execute.engines.local",
    "ftbench.execute.runner",
    "ftbench.records.run_directory",
    "ftbench.report.commands.plan",
    "ftbench.report.write",
    "ftbench.verbs.run",
    "ftbench.verbs.predict",
    "ftbench.worker.process.entry",
)


def loaded(module, packages):
    code = f"import {module}, sys; print(*[m for m in {packages} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", LIGHT)
def test_the_parent_loads_no_heavy_package(module):
    assert loaded(module, HEAVY) == ""


@pytest.mark.parametrize(
    "module",
    ["ftbench.prediction.main", "ftbench.report.commands.plan", "ftbench.report.render.terminal"],
)
def test_what_is_asked_often_loads_no_more_than_it_needs(module):
    assert loaded(module, ("scipy.stats", "evaluate", "altair")) == ""  # half a second each


def test_a_prediction_from_the_cache_is_shown_without_what_makes_predictions():
    modules = (
        "ftbench.cli, ftbench.execute.kept.kept_answer, ftbench.gating.compare, ftbench.plan.resolve,"
        " ftbench.report.commands.gate, ftbench.report.commands.plan, ftbench.report.render.terminal"
    )
    not_needed = ("numpy", "pandas", "scipy", "torch", "ftbench.execute.engines.local")
    assert loaded(modules, not_needed) == ""


def test_the_command_line_starts_without_what_single_commands_need():
    """Its help, and completion in a shell at every press of a key, would wait for it."""
    heavy = ("pydantic", "pandas", "numpy", "ftbench.plan.profile", "ftbench.records.record")
    assert loaded("ftbench.cli", heavy) == ""


def test_only_the_command_line_prints_or_exits():
    for file in ROOT.rglob("*.py"):
        if file.relative_to(ROOT).parts[0] in ("cli", "__main__.py", "worker", "prediction"):
            continue
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"print", "sys.exit", "exit"}, file


LONGEST_FUNCTION, MEDIAN_FUNCTION, LONGEST_FILE = 60, 10, 450  # lines


def function_lengths(file):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, functions):
            yield node.end_lineno - node.lineno + 1, f"{file.relative_to(ROOT.parent)}: {node.name}"


def test_functions_are_short():
    lengths = [found for file in ROOT.parent.rglob("*.py") for found in function_lengths(file)]
    assert [name for lines, name in lengths if lines > LONGEST_FUNCTION] == []
    assert statistics.median(lines for lines, _ in lengths) < MEDIAN_FUNCTION


def test_files_are_short():
    lines = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in ROOT.rglob("*.py")}
    assert {name for name, count in lines.items() if count > LONGEST_FILE} == set()


def test_the_command_line_knows_the_type_of_all_that_it_handles():
    for file in (ROOT / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                given = [node.returns, *(argument.annotation for argument in arguments)]
                names = {ast.unparse(annotation) for annotation in given if annotation}
                assert not [name for name in names if "Any" in name], f"{file.name}: {node.name}"
