"""The command line as a process: what it prints where, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store import RunDirectory
from tests.factories import environment, preparation, profile, record

FTBENCH = str(Path(sys.executable).with_name("ftbench"))


def ftbench(*arguments, cwd=None):
    return subprocess.run([FTBENCH, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


def test_help_names_the_commands():
    done = ftbench("--help")
    assert done.returncode == 0
    for command in ("plan", "run", "report", "schema"):
        assert command in done.stdout


def test_version():
    assert ftbench("--version").stdout.startswith("ftbench 0.")


def test_plan_prints_the_cells():
    done = ftbench("plan", "smoke")
    assert done.returncode == 0
    assert "smoke: 4 cells" in done.stdout


def test_plan_json_is_one_document_and_nothing_else():
    done = ftbench("plan", "smoke", "--json", "--only", "max_length=16")
    data = json.loads(done.stdout)
    assert [cell["max_length"] for cell in data["cells"]] == [16, 16]
    assert done.stderr == ""


def test_plan_of_a_hub_profile_without_a_network(tmp_path):
    done = ftbench("plan", "imdb-distilbert", "--json", "--set", "workload.model=no-such/model")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["cells"]) == 27
    assert "no id yet" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "smok"), "nearest:  smoke"),
        (("plan", "smoke", "--set", "training.learning_rat=1"), "nearest:  learning_rate"),
        (("plan", "smoke", "--set", "nonsense"), "expected: KEY=VALUE"),
        (("plan", "smoke", "--only", "max_length=17"), "expected: one of 16, 32"),
        (("plan", "smoke", "--set", "workload.dataset=./none.csv"), "no such file or directory"),
        (("run", "smoke", "--set", "run.device=cuda:9"), "no such device"),
        (("run", "smoke", "--out", "/proc/none"), "cannot be written"),
        (
            ("run", "imdb-distilbert", "--set", "workload.model=no-such/model"),
            "the hub cannot be reached",
        ),
        (("report", "/none"), "not a run directory"),
        (("plan", "smoke", "--set", 'workload.model=""'), "a text that is not empty"),
        (("plan", "smoke", "--set", "workload.model=--x"), "no such file or directory"),
        (("plan", "smoke", "--set", "workload.dataset=a..b"), "not a hub id"),
        (("plan", "smoke", "--set", "workload.dataset=~nobody/x"), "workload.dataset"),
        (("plan", "smoke", "--set", "training.lr_scheduler_kwargs={a=2024-01-01}"), "not usable"),
        (("plan", "smoke", "--set", "training.learning_rate=nan"), "finite"),
        (("plan", "smoke", "--set", "training.num_train_epochs=0"), "greater than 0"),
        (("plan", "smoke", "--set", "grid=[1]", "--set", "grid.x=1"), "no [[grid]] block"),
        (("plan", "smoke", "--set", "name=x"), "unknown key"),
        (("plan", "smoke", "--set", "workload.text_column=label"), "two columns"),
        (
            ("run", "smoke", "--set", 'run.keep_checkpoints=["max_length=9"]'),
            "no cell has this value",
        ),
    ],
)
def test_bad_input_is_told_on_stderr_and_ends_with_2(arguments, said):
    done = ftbench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_option_ends_with_2():
    assert ftbench("plan", "smoke", "--sett", "x=1").returncode == 2


def test_schema_is_json_schema_of_the_file():
    schema = json.loads(ftbench("schema").stdout)
    assert schema["type"] == "object"
    assert set(schema["required"]) == {"workload", "grid"}
    assert "overrides" not in schema["properties"]


@pytest.fixture
def run_directory(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_record(record())
    directory.write_profile(profile())
    directory.write_environment(environment())
    directory.write_preparation(preparation())
    return directory.path


def test_report_writes_where_it_is_told(run_directory, tmp_path):
    done = ftbench("report", run_directory, "--out", tmp_path / "out", "--format", "md")
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.md"]
    assert "1 of 1 runs finished." in done.stdout


def test_report_in_a_format_that_there_is_not(run_directory):
    done = ftbench("report", run_directory, "--format", "cvs")
    assert done.returncode == 2
    assert "nearest:  csv" in done.stderr


def test_output_that_is_no_terminal_is_plain_and_not_cut(run_directory):
    done = ftbench("report", run_directory)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
