"""The session that uses the wheel with lowest and newest versions: what it asks uv for, and what it refuses."""

import subprocess

import pytest

from tests.minimums import __main__ as minimums

PACKAGES = (
    "nvidia-cudnn-cu13==9.20",
    "nvidia-ml-py==13.6",
    "torch==2.13.0",
    "nvidia-nccl-cu13==2.29",
)
DRY_RUN = "".join(f" + {package}\n" for package in PACKAGES)


@pytest.fixture
def environment(tmp_path):
    return minimums.Environment(tmp_path, "3.11", "lowest", "2.13.0")


@pytest.fixture
def asked(monkeypatch):
    """The commands that would run, each of which says what a dry run says."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", DRY_RUN)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(minimums, "DRIVERS", ())
    monkeypatch.delenv("FTBENCH_ALLOW_CUDA", raising=False)
    return commands


def test_cuda_packages_are_refused_and_nvidia_s_library_is_not(environment, asked, monkeypatch):
    assert environment.needs_cuda() == ["nvidia-cudnn-cu13", "nvidia-nccl-cu13"]
    assert "--dry-run" in asked[0]
    monkeypatch.setenv("FTBENCH_ALLOW_CUDA", "1")
    assert environment.needs_cuda() == []


def test_a_driver_allows_them(environment, asked, monkeypatch, tmp_path):
    monkeypatch.setattr(minimums, "DRIVERS", (tmp_path,))
    assert environment.needs_cuda() == []


def test_the_lowest_versions_are_those_of_the_project_and_torch_is_given(
    environment, asked, monkeypatch
):
    monkeypatch.setenv("PIP_FIND_LINKS", "/a /b")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    assert environment.install(*environment.requirements("--extra", "pytest")) == ""
    text = " ".join(asked[0])
    assert "--find-links /a --find-links /b --only-binary :all:" in text
    assert "--extra pytest --resolution lowest-direct torch==2.13.0" in text


def test_what_fails_is_counted_and_told(monkeypatch, capsys, tmp_path):
    def use(environment, *_):
        yield "ftbench plan", "" if environment.resolution == "lowest" else "a message"

    for name, made in {"build": (tmp_path, tmp_path), "make_place": tmp_path}.items():
        monkeypatch.setattr(minimums, name, lambda *_, made=made: made)
    monkeypatch.setattr(minimums, "use", use)
    monkeypatch.setattr(minimums.Environment, "make", lambda self: self.folder.mkdir())
    monkeypatch.setattr(minimums.Environment, "needs_cuda", lambda self: [])
    assert minimums.main(["--python", "3.11"]) == 1
    said = capsys.readouterr().out
    assert "failed  ftbench plan\na message\n" in said
    assert said.endswith("1 failed\n")
    assert minimums.main(["--python", "3.11", "--resolution", "lowest"]) == 0
    monkeypatch.setattr(minimums.Environment, "needs_cuda", lambda self: ["nvidia-nccl-cu13"])
    assert minimums.main(["--python", "3.11"]) == 2
