"""The key of a question: everything that an answer depends on changes it, and nothing else does."""

import os
import sys

import pytest

from ftbench.base import importable
from ftbench.execute.kept import determinants
from ftbench.execute.kept.determinants import key_of
from ftbench.plan.gpus import find_gpu
from ftbench.plan.programs import Program, program_grid
from ftbench.records.prediction import PredictRequest, ProgramRequest
from tests.factories import grid

REQUEST = PredictRequest(cells=grid().cells, gpus=(find_gpu("t4"),))


@pytest.fixture(autouse=True)
def own_sources_anew():
    determinants._own_sources.cache_clear()
    yield
    determinants._own_sources.cache_clear()


@pytest.mark.parametrize(
    "change",
    [
        {"cells": REQUEST.cells[:1]},
        {"gpus": ()},
        {"gpus": (find_gpu("t4").model_copy(update={"memory_bytes": 2**34}),)},
        {"largest_batch": True},
        {"explain": True},
        {"attention": "math"},
        {"expandable_segments": True},
        {"assume_torch": (2, 6)},
        {"data_at_hand": False},
        {"on_cpu": True},
        {"work": True},
        {"breakdown_of": (REQUEST.cells[0].cell_id,)},
    ],
)
def test_another_question_has_another_key(change):
    assert key_of(REQUEST.model_copy(update=change)) != key_of(REQUEST)


def test_another_revision_of_the_model_has_another_key():
    cell = REQUEST.cells[0]
    source = cell.model.source.model_copy(update={"revision": "sha256:another"})
    model = cell.model.model_copy(update={"source": source})
    other = PredictRequest(cells=(cell.model_copy(update={"model": model}),))
    assert key_of(other) != key_of(PredictRequest(cells=(cell,)))


def test_arguments_of_a_program_are_in_the_key():
    program = Program(file="loop.py", factory="make")
    keys = {
        key_of(ProgramRequest(program=program, cells=program_grid(program, [arg]).cells))
        for arg in ("batch=1", "batch=2", "width=1")
    }
    assert len(keys) == 3


def test_the_number_of_workers_is_not_in_the_key():
    assert key_of(REQUEST.model_copy(update={"processes": 4})) == key_of(REQUEST)


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "PYTORCH_ALLOC_CONF", "ACCELERATE_MIXED_PRECISION", "NOBODY_KNOWS"]
)
def test_variables_are_in_the_key(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    without = key_of(REQUEST)
    monkeypatch.setenv(name, "1")
    one = key_of(REQUEST)
    monkeypatch.setenv(name, "2")
    assert len({without, one, key_of(REQUEST)}) == 3


@pytest.mark.parametrize("name", ["TERM", "SHLVL", "_", "SSH_CONNECTION", "COLUMNS"])
def test_the_terminal_is_not_in_the_key(monkeypatch, name):
    before = key_of(REQUEST)
    monkeypatch.setenv(name, "another")
    assert key_of(REQUEST) == before


def test_installed_packages_are_in_the_key(monkeypatch, tmp_path):
    monkeypatch.setattr(importable, "library_folders", lambda: (f"{tmp_path}{os.sep}",))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = key_of(REQUEST)
    folder = tmp_path / "torch-2.13.0.dist-info"
    folder.mkdir()
    installed = key_of(REQUEST)
    folder.rename(tmp_path / "torch-2.13.1.dist-info")
    upgraded = key_of(REQUEST)
    os.utime(tmp_path / "torch-2.13.1.dist-info", ns=(1, 1))  # the same version, installed anew
    assert len({before, installed, upgraded, key_of(REQUEST)}) == 4


def test_a_module_that_would_be_found_earlier_is_in_the_key(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = key_of(REQUEST)
    (tmp_path / "torch.py").write_text("")
    assert key_of(REQUEST) != before


def test_our_own_sources_are_in_the_key(monkeypatch, tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "gpus.toml").write_text("context = 1")
    monkeypatch.setattr(determinants.ftbench, "__file__", str(tmp_path / "__init__.py"))
    before = key_of(REQUEST)
    (tmp_path / "gpus.toml").write_text("context = 2")
    determinants._own_sources.cache_clear()
    assert key_of(REQUEST) != before


def test_folder_path_and_processor_are_in_the_key(monkeypatch, tmp_path):
    keys = [key_of(REQUEST)]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    keys.append(key_of(REQUEST))
    monkeypatch.chdir(tmp_path)
    keys.append(key_of(REQUEST))
    monkeypatch.setattr(determinants, "cpu_name", lambda: "another")
    keys.append(key_of(REQUEST))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(77))
    keys.append(key_of(REQUEST))
    assert len(set(keys)) == 5
