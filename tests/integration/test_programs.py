"""A training loop of one's own for real: predicted, explained and gated in worker processes by the command line."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ftbench.prediction.simulate.nccl import nccl_bytes
from ftbench.prediction.trace.tracer import trace
from tests.integration.conftest import ftbench

pytestmark = pytest.mark.integration

LOOP = Path(__file__).parents[2] / "examples" / "gpt.py"
SMALL = ("--arg", "width=64", "--arg", "layers=2", "--arg", "heads=2", "--arg", "length=32")
PROGRAM = "gpt.py:make_step"
# The whole of the scores is kept until the next step, instead of the loss alone.
BEFORE, AFTER = "return loss.detach()", "return scores.float()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("loop")
    shutil.copy(LOOP, made / "gpt.py")
    with (made / "gpt.py").open("a") as file:
        file.write(
            "\nprint('{\"kind\": \"answer\"}')\nprint('a warning', file=__import__('sys').stderr)\n"
        )
    return made


def loop_of(folder):
    spec = importlib.util.spec_from_file_location("gpt", folder / "gpt.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_figure_is_that_of_the_same_factory_traced_in_code(folder):
    done = ftbench("predict", PROGRAM, *SMALL, "--arg", "batch=[2, 4]", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    make_step = loop_of(folder).make_step
    for cell in data["cells"]:
        traced = trace(lambda device, given=cell["arguments"]: make_step(device, **given))
        assert cell["tensors"]["value_bytes"] == traced.peak_bytes
    assert [cell["arguments"]["batch"] for cell in data["cells"]] == [2, 4]


def test_cards_have_verdicts(folder):
    done = ftbench("predict", PROGRAM, "--arg", "batch=256", "--gpu", "t4", cwd=folder)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["256"])
    assert row.split()[-1] == "no"


def test_an_explanation_has_the_lines_of_the_loop(folder):
    done = ftbench("explain", PROGRAM, *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    _, _, lines = done.stdout.partition("By line of code that made it")
    number = LOOP.read_text().splitlines().index("        loss.backward()") + 1
    assert f"gpt.py:{number}" in lines


def test_a_change_of_a_line_fails_the_gate_which_names_it(folder):
    given = (PROGRAM, *SMALL, "--arg", "batch=[2, 4]")
    done = ftbench("baseline", "write", *given, "--gpu", "l4", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "reports" / "baselines" / "gpt.make_step.json").is_file()
    held = ftbench("gate", *given, cwd=folder)
    assert held.returncode == 0, held.stdout + held.stderr
    assert "The gate holds: 2 cells match" in held.stdout

    text = (folder / "gpt.py").read_text()
    assert BEFORE in text
    (folder / "gpt.py").write_text(text.replace(BEFORE, AFTER))
    try:
        failed = ftbench("gate", *given, cwd=folder)
    finally:
        (folder / "gpt.py").write_text(text)
    assert failed.returncode == 1, failed.stderr
    assert "arg.batch 4: step: the peak rose from" in failed.stdout
    number = LOOP.read_text().splitlines().index(f"        {BEFORE}") + 1
    assert f"(gpt.py:{number})" in failed.stdout


def test_a_factory_that_raises_is_an_error_of_the_user_with_the_line(folder):
    done = ftbench("predict", PROGRAM, "--arg", "width=65", "--arg", "heads=2", cwd=folder)
    assert done.returncode == 2
    first, *frames = done.stderr.splitlines()
    assert first.startswith("ftbench: gpt.py:make_step(width=65, heads=2): AssertionError")
    assert "gpt.py:" in frames[0]
    assert all("torch" not in line for line in frames)


def test_a_program_needs_no_transformers(folder):
    """Its worker would take seconds longer, and the program may be run where they are not installed."""
    code = "import sys, ftbench.prediction.programs; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_rank_of_several_is_predicted_and_gated(tmp_path):
    for name in ("gpt.py", "sharded_gpt.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path / name)
    program = ("sharded_gpt.py:make_step", *SMALL, "--gpus", "2,8")
    done = ftbench("predict", *program, "--gpu", "h100", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    two, eight = json.loads(done.stdout)["cells"]
    assert [cell["num_processes"] for cell in (two, eight)] == [2, 8]
    assert two["tensors"]["value_bytes"] > eight["tensors"]["value_bytes"]
    assert eight["smallest_rank_bytes"] <= eight["tensors"]["value_bytes"]
    card = eight["cards"][0]
    around = card["process"]["high_bytes"] - card["reserved"]["high_bytes"]
    assert around > nccl_bytes(1)[1]

    assert ftbench("baseline", "write", *program, cwd=tmp_path).returncode == 0
    assert ftbench("gate", *program, cwd=tmp_path).returncode == 0
    loop = tmp_path / "sharded_gpt.py"
    each = "fully_shard(layer, mesh=mesh, mp_policy=BFLOAT16"
    loop.write_text(loop.read_text().replace(each, f"{each}, reshard_after_forward=False"))
    failed = ftbench("gate", *program, cwd=tmp_path)
    assert failed.returncode == 1
    assert "unsharded parameters" in failed.stdout
    assert "body.layers.*" in failed.stdout
