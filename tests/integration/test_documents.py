"""What the documents show is executed: their Python and their profiles here, their commands by `nox -s long`.

Pages take things for granted, such as a model of the reader's own; each has them made here. Commands run in a
folder as a newcomer has it, where the profiles of the pages are small. That every command is one of the command
line's is a matter of `tests/unit/test_docs.py`.
"""

import copy
import json
import os
import runpy
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from unittest import mock

import pytest

from ftbench.plan.gpus import Gpu
from ftbench.plan.profile import Profile
from tests.documents import DOCUMENTS, ROOT, blocks, name_of
from tests.small_model import small_encoder

pytestmark = pytest.mark.integration
pytest_plugins = ["pytester"]

# Instead of the packaged model: what a cell of it costs is of no matter here.
SMALL = """\
weights = "random"
config = { num_hidden_layers = 1, hidden_size = 32, num_attention_heads = 2, intermediate_size = 32 }
"""
NET = "import torch\nNet = lambda: torch.nn.Linear(128, 128)\n"


def executed(name, **given):
    """Return what the Python of a page leaves, block after block, with what it takes for granted."""
    found = given
    for line, code in blocks(ROOT / name, "python"):
        exec(compile("\n" * (line - 1) + code, name, "exec"), found)
    return found


def model_of_the_reader():
    """Return a class of models whose answer has a loss, and whose layers can be sharded."""
    import torch

    class MyModel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(100, 16)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(2))

        def forward(self, tokens):
            states = self.words(tokens)
            for layer in self.layers:
                states = layer(states)
            return types.SimpleNamespace(loss=states.square().mean())

    return MyModel


def small_profile(name):
    """Return a profile of this repository as text, with a small model in the place of its own."""
    text = (ROOT / "profiles" / f"{name}.toml").read_text()
    return text.replace("[workload]\n", f"[workload]\n{SMALL}", 1)


@pytest.fixture
def newcomer(tmp_path, monkeypatch):
    """A folder as a newcomer has it: small profiles, the examples, reviews, a loop, and a model."""
    (tmp_path / "profiles").mkdir()
    for name in ("quick", "offline", "smoke"):
        (tmp_path / "profiles" / f"{name}.toml").write_text(small_profile(name))
    memory = (ROOT / "profiles" / "memory.toml").read_text()
    one = memory.replace("[64, 128, 256, 512]", "[64, 512]").replace("[4, 8, 16, 32]", "[4]")
    (tmp_path / "profiles" / "memory.toml").write_text(one)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    rows = [f"{n % 2},{' '.join(f'word{(n * k) % 97}' for k in range(9))} {n}" for n in range(300)]
    (tmp_path / "reviews.csv").write_text("stars,review\n" + "\n".join(rows) + "\n")
    ((_, loop),) = blocks(ROOT / "docs" / "how-to" / "my-loop.md", "python")
    (tmp_path / "train.py").write_text(loop)
    small_encoder(tmp_path / "my-model", [f"word{n}" for n in range(97)])
    monkeypatch.chdir(tmp_path)
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "bench"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path


def check(*command):
    """Run a command; it must end with 0."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Python ---------------------------------------------------------------------------------------------


def test_a_loop_of_your_own_is_traced_and_trains():
    from ftbench.prediction.trace.tracer import trace

    found = executed("docs/how-to/my-loop.md")
    assert trace(found["make_step"]).peak_bytes > 4 * 4 * 256 * 256  # AdamW: four times the weights
    step = found["make_step"]("cpu")
    losses = [float(step()) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_the_loop_and_the_trace_of_prediction():
    example = runpy.run_path(str(ROOT / "examples" / "gpt.py"))
    found = executed("docs/prediction.md", **example, MyModel=model_of_the_reader())
    step = found["make_step"]("cpu", batch=2, length=8, width=16, layers=1, heads=2)
    assert 5 < float(step()) < 15  # near the logarithm of the vocabulary
    weights = 4 * (100 * 16 + 2 * 17 * 16)
    assert found["traced"].peak_bytes > 3 * weights
    reserved = found["simulate"](found["traced"]).peak_reserved_bytes
    assert reserved >= found["traced"].peak_bytes


def test_the_rank_of_several_gpus():
    found = executed("docs/several-gpus.md", MyModel=model_of_the_reader())
    alone = found["trace"](found["factory"], ranks=found["Ranks"](size=1))
    assert 0 < found["traced"].peak_bytes < alone.peak_bytes


def test_the_record_of_a_snapshot():
    import torch

    real = torch.cuda.memory
    told = mock.Mock()
    told.attach_mock(mock.create_autospec(real._record_memory_history), "record")
    told.attach_mock(mock.create_autospec(real._dump_snapshot), "dump")
    memory = types.SimpleNamespace(_record_memory_history=told.record, _dump_snapshot=told.dump)
    stand_in = types.SimpleNamespace(cuda=types.SimpleNamespace(memory=memory))
    executed("docs/check-snapshot.md", torch=stand_in, train=told.train)
    assert [call[0] for call in told.method_calls] == ["record", "train", "dump"]


def test_the_tests_of_the_gate_s_page_pass_and_write_a_baseline(pytester):
    ((_, code),) = blocks(ROOT / "docs" / "gate.md", "python")
    pytester.makepyfile(test_page=NET + code)
    written = pytester.runpytest_subprocess("--gpu-memory-update")
    written.assert_outcomes(passed=2)
    kept = json.loads((pytester.path / "gpu_memory" / "test_page" / "net.json").read_text())
    (cell,) = kept["groups"][0]["cells"]
    assert cell["tensors_bytes"] > 4 * 4 * 128 * 128  # AdamW: four times the weights


def test_a_meter_reads_what_its_row_names():
    found = executed("docs/how-to/add-a-meter.md")
    meter, name = found["SwapMemory"](), found["ROW"].reading
    meter.start("train")
    assert set(meter.read()) == set(meter.idle()) == set(meter.sources()) == {name}
    assert meter.read()[name] >= 0
    assert meter.absent() == {}


def test_a_meter_without_its_source_gives_the_reason(tmp_path):
    (tmp_path / "status").write_text("VmRSS:\t5 kB\n")
    meter = executed("docs/how-to/add-a-meter.md")["SwapMemory"](tmp_path / "status")
    assert (meter.read(), list(meter.absent())) == ({}, ["swap_bytes"])


def test_an_engine_gives_the_answer_of_its_worker(monkeypatch, tmp_path):
    worker = types.ModuleType("worker_of_a_page")
    worker.main = lambda request, on_progress: {"doubled": 2 * request["number"]}
    monkeypatch.setitem(sys.modules, worker.__name__, worker)
    engine = executed("docs/how-to/add-an-engine.md")["ThreadEngine"]()
    log = {"log_file": tmp_path / "log", "timeout_s": 9}
    outcome = engine.run(worker.__name__, '{"number": 21}', **log)
    assert (outcome.answer, outcome.exit_code) == ({"doubled": 42}, 0)
    failed = engine.run(worker.__name__, '{"other": 1}', **log)
    assert (failed.answer, failed.exit_code, "number" in failed.log_tail) == (None, 1, True)
    engine.cancel()


@pytest.mark.long
def test_the_python_of_its_page_runs(newcomer):
    check("ftbench", "baseline", "write", "quick", "--baseline", "baseline.json")
    found = executed("docs/python.md")
    assert found["results"].ok
    assert set(found["results"].to_pandas()["max_length"]) == {64}
    assert set(found["predicted"].to_pandas()["gpu"]) == {"t4", "l4"}
    assert (newcomer / "results" / "quick" / "report.html").is_file()


def test_every_page_with_python_is_executed():
    here = Path(__file__).read_text()
    with_python = {name_of(one) for one in DOCUMENTS if blocks(one, "python")}
    elsewhere = {"docs/tasks.md", "docs/gate.md"}  # the first by tests/unit/test_docs.py
    assert elsewhere < with_python
    assert [name for name in with_python - elsewhere if f'executed("{name}"' not in here] == []


# --- Profiles -------------------------------------------------------------------------------------------

# Those of other programs, such as pyproject.toml, are TOML, and nothing more is known of them here.
TOML = [
    pytest.param(given, id=f"{name_of(one)}:{line}")
    for one in DOCUMENTS
    for line, code in blocks(one, "toml")
    if (given := tomllib.loads(code)).keys() & {"gpus", *Profile.model_fields}
]


@pytest.mark.parametrize("given", TOML)
def test_a_profile_or_a_card_of_a_page_is_one(given):
    if "gpus" in given:
        ((name, entry),) = given["gpus"].items()
        assert Gpu.model_validate({"name": name, **entry}).generation == "Ada"
        return
    whole = tomllib.loads((ROOT / "profiles" / "quick.toml").read_text())
    merged = copy.deepcopy(whole) | given
    merged["workload"] = whole["workload"] | given.get("workload", {})
    profile = Profile.model_validate({"name": "page", **merged})
    assert all(block.axes for block in profile.grid)


def test_profiles_of_pages_are_seen():
    assert len(TOML) >= 5


# --- Commands -------------------------------------------------------------------------------------------

# Pages whose commands are not run here, each with what runs them, or why nothing can.
NOT_HERE = {
    "docs/tutorial.md": "tests/tutorial.py",
    "docs/check-snapshot.md": "tests/integration/test_check_snapshot.py",
    "docs/calibrate.md": "tests/integration/test_calibrate.py",
    "docs/selfcheck.md": "tests/integration/test_selfcheck.py",
    "docs/several-gpus.md": "tests/integration/test_ranks_that_run.py",
    "docs/gate.md": "tests/unit/test_cli_gate.py",
    "docs/validation.md": "tests/validation",  # needs files of others' measurements
}
# Commands of other pages that this folder cannot answer.
LEFT_OUT = (
    "nox ",  # CI runs the sessions
    "python -m pip install nox",
    "export PATH",
    "COMP_WORDBREAKS",
    "ftbench frontier",  # tests/faults/test_frontier.py
    "ftbench run path/to/my-profile.toml",
    "ftbench report results/a results/b",
    "ftbench predict imdb-distilbert",  # a model of 66 M parameters, which nothing else on the pages needs
    "ftbench run imdb-distilbert",
    "ftbench plan imdb-distilbert",
)
# What pages take for granted that their reader has done before.
BEFORE = {
    "docs/scaling.md": "ftbench run quick --only max_length=32,train_size=64",
}


def commands(document):
    """Return the commands of a page, but for those that are left out; continued lines are joined."""
    text = "".join(code for _, code in blocks(document, "sh")).replace("\\\n", " ")
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *LEFT_OUT))]


WITH_COMMANDS = [one for one in DOCUMENTS if name_of(one) not in NOT_HERE and commands(one)]


@pytest.mark.long
@pytest.mark.parametrize("document", WITH_COMMANDS, ids=name_of)
def test_the_commands_of_a_page_run_in_their_order(document, newcomer):
    for line in (BEFORE.get(name_of(document), "true"), *commands(document)):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_what_is_left_out_is_still_on_a_page_and_tested_elsewhere():
    assert [file for file in NOT_HERE.values() if not (ROOT / file).exists()] == []
    assert [name for name in (*NOT_HERE, *BEFORE) if not blocks(ROOT / name, "sh")] == []
    lines = [
        line for one in DOCUMENTS for _, code in blocks(one, "sh") for line in code.splitlines()
    ]
    assert [start for start in LEFT_OUT if not any(line.startswith(start) for line in lines)] == []
