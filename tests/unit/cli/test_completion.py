"""Completion, as a shell asks for it: the words before the cursor, and the number of the one that is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftbench.plan.gpus import load_gpus
from ftbench.plan.profile_file import profile_names

FTBENCH = str(Path(sys.executable).with_name("ftbench"))


def completed(line):
    """Return what bash is told for the last word of a line."""
    words = line.split(" ")
    asked = {
        "_FTBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([FTBENCH], env=os.environ | asked, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("verb", ["plan", "predict", "estimate", "run", "gate"])
def test_profiles(verb):
    names = [name for name in profile_names() if name.startswith("o")]
    assert completed(f"ftbench {verb} o") == names


def test_cards():
    ada = [name for name in load_gpus() if name.startswith("rtx-4")]
    assert completed("ftbench predict quick --gpu rtx-4") == ada
    assert completed("ftbench estimate quick --gpu t4 --gpu al") == ["all"]
    assert completed("ftbench fit-search quick --gpu h2") == ["h200"]


@pytest.mark.parametrize(("verb", "option"), [("run", "--only"), ("explain", "--cell")])
def test_cells_by_the_values_on_the_axes_of_the_profile(verb, option):
    pairs = completed(f"ftbench {verb} smoke {option} ")
    assert {"max_length=16", "max_length=32", "per_device_train_batch_size=8"} <= set(pairs)
    assert completed(f"ftbench {verb} smoke {option} max") == ["max_length=16", "max_length=32"]
    assert completed(f"ftbench {verb} smoke {option} max_length=3") == ["max_length=32"]


def test_the_profile_may_stand_behind_a_file():
    found = completed("ftbench check-snapshot file.pickle smoke --cell max")
    assert found == ["max_length=16", "max_length=32"]


def test_an_axis_is_not_offered_twice():
    pairs = completed("ftbench run smoke --only max_length=16,")
    assert pairs
    assert all(pair.startswith("max_length=16,") for pair in pairs)
    assert not any("max_length" in pair.removeprefix("max_length=16,") for pair in pairs)


def test_tasks():
    assert completed("ftbench init data.csv --task tok") == ["token-classification"]


@pytest.mark.parametrize("profile", ["none-such", "/proc/none.toml", "--json"])
def test_what_cannot_be_read_has_no_completions(profile):
    assert completed(f"ftbench run {profile} --only max") == []


def test_a_broken_profile_is_offered_and_breaks_nothing(tmp_path, monkeypatch):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "own-broken.toml").write_text("x = [")
    monkeypatch.chdir(tmp_path)
    assert completed("ftbench plan own") == ["own-broken"]
    assert completed("ftbench run own-broken --only m") == []
