"""The facts of the doctor: from files as the kernel has them, an environment, and a worker that is made up."""

import os

import pytest

from ftbench.base.errors import WorkerError
from ftbench.base.units import GIB
from ftbench.execute import doctor
from ftbench.execute.doctor import BROWSER, BROWSERS, LOOK, examine
from ftbench.execute.engines.base import Outcome
from ftbench.records.doctor import TorchFacts
from tests import browser
from tests.unit.execute.engines.test_cgroup import version_2

TORCH = TorchFacts(version="2.13.0", cuda=None, cards=(), threads=2)


class Worker:
    """An engine whose only worker answers at once."""

    def __init__(self, **outcome):
        self.outcome, self.asked = {"answer": None, "refusal": None, **outcome}, []

    def run(self, module, request, **_):
        self.asked.append(module)
        return Outcome(
            **{"exit_code": 0, "timed_out": False, "wall_s": 1.0, "log_tail": "", **self.outcome}
        )


@pytest.fixture
def healthy():
    return Worker(answer=TORCH.model_dump(mode="json"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_worker_looks_at_torch(healthy, home):
    facts = examine(healthy, environ=home)
    assert healthy.asked == [LOOK]
    assert (facts.torch, facts.torch_absent) == (TORCH, None)
    assert facts.packages["torch"]
    assert facts.processors == len(os.sched_getaffinity(0))
    assert facts.memory_bytes > GIB // 4


def test_a_worker_that_dies_is_a_fact_with_its_last_words(home):
    dead = Worker(exit_code=1, log_tail="Traceback\nImportError: libcudart.so.12: no such file\n")
    facts = examine(dead, environ=home)
    assert facts.torch is None
    assert "ended without an answer" in facts.torch_absent
    assert facts.torch_absent.endswith("libcudart.so.12: no such file")


def test_an_error_of_the_worker_is_a_fact(home):
    facts = examine(Worker(refusal=WorkerError("no card")), environ=home)
    assert (facts.torch, facts.torch_absent) == (None, "no card")


def test_without_torch_no_worker_is_started(healthy, home, monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    facts = examine(healthy, environ=home)
    assert healthy.asked == []
    assert (facts.torch, facts.packages["torch"]) == (None, None)


def test_limits_of_control_groups(healthy, home, tmp_path):
    files, group = version_2(tmp_path)
    (group / "memory.max").write_text(str(3 * GIB))
    (group / "cpu.max").write_text("150000 100000")
    found = examine(healthy, environ=home, proc=files).group
    assert (found.limit_bytes, found.processors) == (3 * GIB, 1.5)


def test_a_machine_without_control_groups(healthy, home, tmp_path):
    found = examine(healthy, environ=home, proc=tmp_path / "none").group
    assert (found.limit_bytes, found.processors) == (None, None)
    assert found.absent


def test_variables_that_change_a_run_s_allocator(healthy, home):
    variables = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "CUBLAS_WORKSPACE_CONFIG": ":8"}
    assert examine(healthy, environ=home | variables).variables == variables
    assert examine(healthy, environ=home | {"PYTORCH_ALLOC_CONF": ""}).variables == {}


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False)])
def test_whether_the_hub_may_be_asked(healthy, home, value, offline):
    assert examine(healthy, environ=home | {"HF_HUB_OFFLINE": value}).offline is offline


def test_folders_are_those_of_the_libraries(healthy, home, tmp_path):
    (tmp_path / "hf").write_text("a file")
    facts = examine(healthy, environ=home | {"HF_HUB_CACHE": str(tmp_path / "models")})
    found = {folder.purpose: folder for folder in facts.folders}
    assert found["models"].path == str(tmp_path / "models")
    assert found["models"].refused is None
    assert found["models"].free_bytes > 0
    assert found["tokenised data"].path == str(tmp_path / "hf/datasets")
    assert found["tokenised data"].refused == f"{tmp_path / 'hf'} is no folder"
    assert found["ftbench's cache"].path == str(tmp_path / "cache/ftbench")
    assert not (tmp_path / "models").exists()  # nothing is made


def test_a_browser_is_looked_for_as_the_tests_do(healthy, home, tmp_path, monkeypatch):
    assert (BROWSER, set(BROWSERS)) == (browser.VARIABLE, set(browser.NAMES))
    program = tmp_path / "msedge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert examine(healthy, environ=home).browser == str(program)
    assert examine(healthy, environ=home | {BROWSER: "none-such"}).browser is None


def test_a_damaged_calibration_is_no_calibration(healthy, home, tmp_path):
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/x.json").write_text('{"schema_version": 1, "sha256": "0"}')
    assert examine(healthy, environ=home).calibrated == ()
