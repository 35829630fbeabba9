import importlib.metadata
import os

import torch

from ftbench.worker.prepare.environment import PACKAGES, read_environment


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


def test_what_decides_allocation_is_in_it_and_nothing_where_nothing_is_set(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    for name in ("LD_PRELOAD", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE"):
        monkeypatch.delenv(name, raising=False)
    plain = read_environment(torch.device("cpu"))
    assert plain.variables == {}
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    tuned = read_environment(torch.device("cpu"))
    assert tuned.variables == {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MALLOC_ARENA_MAX": "2",
    }
    assert tuned.environment_id != plain.environment_id


def test_outside_of_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read_environment(torch.device("cpu")).git_commit is None
