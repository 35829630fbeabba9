"""What only reading the model and the data can tell is refused before any cell runs."""

import pytest

from tests.integration.conftest import ftbench, run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"grid__max_length": "[16, 600]"},
            ["grid.max_length: longer than the model", "600", "at most 512"],
        ),
        (
            {"grid__train_size": "[90000]"},
            ["grid.train_size: more examples than", "at most 19892"],
        ),
        (
            {"workload__eval_size": "90000"},
            ["workload.eval_size: more examples than", "at most 4972"],
        ),
        (
            {"workload__text_column": "txt"},
            ["workload.text_column: no such column", "nearest:  text"],
        ),
        ({"training__eval_strategy": "steps"}, ["training: transformers rejects these settings"]),
    ],
)
def test_refused_before_anything_runs(tmp_path, settings, said):
    done = run("smoke", tmp_path / "run", **settings)
    assert done.process.returncode == 2
    for text in said:
        assert text in done.process.stderr
    assert "Traceback" not in done.process.stderr
    assert done.records == []


@pytest.mark.parametrize("verb", [("estimate", "--gpu", "t4"), ("frontier", "--limit", "4GiB")])
def test_a_verb_of_one_process_refuses_several(tmp_path, verb):
    name, *options = verb
    done = ftbench(name, "smoke", *options, "--set", "num_processes=2")
    assert done.returncode == 2
    assert "cells of one process only" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--limit", "much"), "not a size"),
        ((), "a memory limit is required on the CPU"),
        (("--limit", "4GiB", "--max-batch", "0"), "--max-batch"),
    ],
)
def test_a_frontier_without_a_usable_limit(tmp_path, arguments, said):
    done = ftbench("frontier", "smoke", "--out", tmp_path / "run", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
