"""Predictions from the cache for real: a worker's own, and made anew after a change of what they depend on."""

import json
import os
import subprocess
import sys

import pytest

from ftbench import cli
from ftbench.verbs import asking
from tests.integration.conftest import SMALL

pytestmark = pytest.mark.integration

LOOP = """
import torch
from layers import make_model

def make_step(device, batch=2):
    model = make_model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        loss = model(torch.zeros(batch, 1024, device=device)).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
"""
LAYERS = """
from torch import nn

def make_model():
    return nn.Linear(1024, {width}, bias=False)
"""


class Workers:
    """Counts the workers that are started."""

    def __init__(self, monkeypatch):
        self.started = 0
        self._predictor = asking.predictor
        monkeypatch.setattr(asking, "predictor", self)

    def __call__(self):
        self.started += 1
        return self._predictor()


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch)


@pytest.fixture
def ask(monkeypatch, tmp_path, tmp_path_factory, capsys):
    monkeypatch.setenv("FTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path)

    def asked(*arguments):
        monkeypatch.setattr(sys, "argv", ["ftbench", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out)

    return asked


def peaks(answer):
    return [cell["tensors"]["value_bytes"] for cell in answer["cells"]]


def test_a_profile_is_traced_once(ask, workers):
    asked = ["smoke", *(f"--set={key}={value}" for key, value in SMALL.items())]
    first = ask("predict", *asked)
    assert ask("predict", *asked) == first
    assert workers.started == 1
    planned = ask("plan", *asked)  # asks the same
    assert [cell["predicted"]["value_bytes"] for cell in planned["cells"]] == peaks(first)
    assert workers.started == 1
    assert ask("predict", *asked, "--no-cache") == first
    assert workers.started == 2
    assert ask("cache")["predictions"] == 1
    wider = ask("predict", *asked, "--set=workload.config.hidden_size=64")
    assert min(peaks(wider)) > min(peaks(first))
    assert workers.started == 3
    assert ask("cache", "--clear")["cleared"]
    assert ask("predict", *asked) == first
    assert workers.started == 4


def test_a_program_is_traced_anew_after_a_change_of_a_module_that_it_imports(
    ask, workers, tmp_path, monkeypatch
):
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "layers.py").write_text(LAYERS.format(width=1024))
    program = ("loop.py:make_step", "--arg", "batch=[2, 4]")
    first = ask("predict", *program)
    assert ask("predict", *program) == first
    assert workers.started == 1
    before = (tmp_path / "layers.py").stat()
    (tmp_path / "layers.py").write_text(LAYERS.format(width=2048))  # as many bytes
    os.utime(tmp_path / "layers.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    second = ask("predict", *program)
    assert workers.started == 2
    more = [after - before for before, after in zip(peaks(first), peaks(second), strict=True)]
    assert min(more) >= 1024 * 1024 * 4  # at least the weights
    assert ask("predict", *program) == second
    monkeypatch.setenv("ANY_VARIABLE", "1")
    assert ask("predict", *program) == second
    assert workers.started == 3


def test_a_program_that_reads_a_file_is_traced_anew_each_time(ask, workers, tmp_path):
    (tmp_path / "width.txt").write_text("1024")
    reading = LOOP.replace("from layers import make_model", "from torch import nn").replace(
        "make_model()", "nn.Linear(1024, int(open('width.txt').read()), bias=False)"
    )
    (tmp_path / "loop.py").write_text(reading)
    first = ask("predict", "loop.py:make_step")
    (tmp_path / "width.txt").write_text("2048")
    second = ask("predict", "loop.py:make_step")
    assert peaks(second)[0] - peaks(first)[0] >= 1024 * 1024 * 4
    assert ask("cache")["predictions"] == 0
    assert workers.started == 2


def test_an_answer_from_the_cache_needs_no_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "ftbench", "predict", "smoke"]
    command += [f"--set={key}={value}" for key, value in SMALL.items()]
    environment = os.environ | {"FTBENCH_CACHE": str(tmp_path / "cache")}
    runs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    loaded = {line.rpartition("|")[2].strip() for line in runs[1].stderr.splitlines()}
    assert "ftbench.execute.kept.kept_answer" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "ftbench.execute.engines.local"}
