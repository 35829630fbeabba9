import importlib.metadata

import torch

from bench.worker.environment import PACKAGES, read_environment


def test_the_environment_names_what_figures_depend_on():
    found = read_environment(torch.device("cpu"))
    assert found.packages == {name: importlib.metadata.version(name) for name in PACKAGES}
    assert found.device.kind == "cpu"
    assert found.memory_bytes > 2**28
    assert found.driver is None


def test_it_is_the_same_twice():
    first, second = (read_environment(torch.device("cpu")) for _ in range(2))
    assert first.environment_id == second.environment_id


def test_secrets_in_the_environment_are_not_in_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    assert "hf_secret_value" not in read_environment(torch.device("cpu")).model_dump_json()


def test_outside_of_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_environment(torch.device("cpu")).git_commit is None
