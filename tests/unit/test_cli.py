"""The command line as a process: what it prints where, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftbench.base.errors import EXIT_FINDING, PredictionError, WorkerError, WorkloadError
from ftbench.cli.ending import Interrupted, Terminated
from ftbench.execute import prediction_worker as forecast
from ftbench.plan.grid import expand
from ftbench.plan.profile_file import load_profile
from ftbench.plan.sources import resolve_data, resolve_model
from ftbench.records.prediction import LargestBatch, Refused
from ftbench.records.run_directory import RunDirectory
from tests.factories import (
    environment,
    figure,
    predicted_cell,
    predictions,
    preparation,
    profile,
    record,
)

FTBENCH = str(Path(sys.executable).with_name("ftbench"))


def ftbench(*arguments, cwd=None):
    return subprocess.run([FTBENCH, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


def test_help_names_the_commands():
    done = ftbench("--help")
    assert done.returncode == 0
    for command in ("plan", "predict", "explain", "estimate", "run", "report", "schema"):
        assert command in done.stdout


def test_version():
    assert ftbench("--version").stdout.startswith("ftbench 0.")


def test_plan_prints_the_cells():
    done = ftbench("plan", "smoke", "--no-predict")
    assert done.returncode == 0
    assert "smoke: 4 cells" in done.stdout
    assert "predicted" not in done.stdout


def test_plan_json_is_one_document_and_nothing_else():
    done = ftbench("plan", "smoke", "--no-predict", "--json", "--only", "max_length=16")
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
        (("selfcheck", "--only", "largest"), "nearest:  largest-batch"),
        (("plan", "smoke", "--set", 'workload.model=""'), "at least 1 character"),
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


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("typer", ["plan"]), ("torch", ["selfcheck"]), ("pydantic", ["selfcheck"])],
)
def test_a_missing_package_is_named_in_one_sentence(missing, arguments):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments}\n"
        "from ftbench.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


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
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.md", "figures"}
    assert "1 of 1 run finished." in done.stdout


def test_report_in_a_format_that_there_is_not(run_directory):
    done = ftbench("report", run_directory, "--format", "cvs")
    assert done.returncode == 2
    assert "nearest:  csv" in done.stderr


def test_output_that_is_no_terminal_is_plain_and_not_cut(run_directory):
    done = ftbench("report", run_directory)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout


@pytest.mark.parametrize(
    ("formats", "files"),
    [
        ("json,parquet", ["cells.parquet", "ledger.parquet", "report.json", "scores.parquet"]),
        ("latex", ["report-tables.tex", "report.tex"]),
    ],
)
def test_report_for_other_programs(run_directory, tmp_path, formats, files):
    done = ftbench("report", run_directory, "--out", tmp_path / "out", "--format", formats)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == files


def test_a_step_summary_is_appended_to_the_file_of_the_step(run_directory, tmp_path, monkeypatch):
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    done = ftbench("report", run_directory, "--format", "step-summary")
    assert done.returncode == 0, done.stderr
    assert file.read_text().startswith("before\n\n# ftbench: test")
    assert f"wrote {file}" in done.stdout


def test_a_step_summary_elsewhere_writes_nothing(run_directory, tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    out = tmp_path / "out"
    done = ftbench("report", run_directory, "--out", out, "--format", "md,step-summary")
    assert done.returncode == 2
    assert "GITHUB_STEP_SUMMARY is not set" in done.stderr
    assert not out.exists() or not any(out.iterdir())


def test_two_run_directories_are_put_side_by_side(run_directory, tmp_path):
    done = ftbench("report", run_directory, run_directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("What differs") < done.stdout.index("What was found")
    assert "wrote" not in done.stdout
    assert not (run_directory / "report.md").exists()
    out = tmp_path / "out"
    done = ftbench("report", run_directory, run_directory, "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.iterdir()) == [
        f"side_by_side.{kind}" for kind in ("csv", "html", "md")
    ]


def test_what_cannot_be_put_side_by_side(run_directory, tmp_path):
    for arguments, said in (
        (
            (run_directory, run_directory, run_directory),
            "one, or two for a comparison side by side",
        ),
        ((run_directory, run_directory, "--out", run_directory), "neither of them"),
        (
            (run_directory, run_directory, "--format", "md"),
            "--out: a comparison of two run directories",
        ),
        ((run_directory, tmp_path), "not a run directory"),
        (
            (run_directory, run_directory, "--out", tmp_path / "x", "--format", "mdd"),
            "nearest:  md",
        ),
    ):
        done = ftbench("report", *arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


# Predictions: what the worker says is planted, and the command line is in this process


class Forecast:
    """In the place of `prediction_worker.forecast`: answers at once, and remembers what was asked."""

    def __init__(self):
        self.requests = []
        self.error = None
        self.refused = ()

    def __call__(self, request, engine, *, kept, on_progress):
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        names = [gpu.name for gpu in request.gpus]
        left = [cell for cell in request.cells if cell.max_length not in self.refused]
        answer = predictions(request, *names, explain=request.explain, work=request.work)
        return answer.model_copy(
            update={
                "cells": tuple(answer.of(cell.cell_id) for cell in left),
                "refused": tuple(
                    Refused(cell_id=cell.cell_id, reason="training.optim: not covered")
                    for cell in request.cells
                    if cell not in left
                ),
                "largest": tuple(
                    LargestBatch(
                        cell_id=cell.cell_id,
                        gpu=name,
                        max_length=cell.max_length,
                        certain=512,
                        possible=512,
                        reserved=figure(100),
                    )
                    for cell in left
                    for name in names
                    if request.largest_batch
                ),
                "notes": ("a note",),
            }
        )


@pytest.fixture
def planted(monkeypatch):
    made = Forecast()
    monkeypatch.setattr(forecast, "forecast", made)
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predict", "smok"), "nearest:  smoke"),
        (("predict", "smoke", "--gpu", "a100"), "nearest:  a100-40gb, a100-80gb"),
        (("predict", "smoke", "--gpu", "rtx-309"), "nearest:  rtx-3090"),
        (("predict", "smoke", "--gpu", "a teapot"), "24GiB"),
        (("predict", "smoke", "--gpu", "1MiB"), "too little memory for a GPU"),
        (("predict", "smoke", "--gpu", "t4", "--gpu", "h1"), "nearest:  h100"),
        (("predict", "smoke", "--attention", "flush"), "nearest:  flash"),
        (("predict", "smoke", "--only", "max_lengt=16"), "nearest:  max_length"),
        (("explain", "smoke", "--gpu", "rtx-309"), "nearest:  rtx-3090"),
        (("explain", "smoke", "--attention", "x"), "one of math, efficient, flash, cudnn"),
        (("explain", "smoke", "--cell", "max_lengt=16"), "nearest:  max_length"),
        (("explain", "smoke", "--cell", "max_length=17"), "--cell max_length"),
        (("explain", "smoke", "--cell", "16"), "--cell"),
        (
            ("predict", "imdb-distilbert", "--set", "workload.model=no-such/model"),
            "the hub cannot be reached",
        ),
    ],
)
def test_nothing_is_predicted_for_bad_input(planted, command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert planted.requests == []


def test_predict_shows_cells_and_largest_batches(planted, command):
    code, out, err = command("predict", "smoke", "--gpu", "t4", "--gpu", "H100")
    assert (code, err) == (0, "")
    for text in (
        "Predicted peak GPU memory",
        "90.0 MiB",
        "Largest batch that fits",
        "512",
        "a note",
    ):
        assert text in out
    (request,) = planted.requests
    assert [gpu.name for gpu in request.gpus] == ["t4", "h100"]
    assert len(request.cells) == 4
    assert request.largest_batch
    assert not request.explain


def test_predict_without_a_card_has_no_largest_batch(planted, command):
    _, out, _ = command("predict", "smoke")
    assert "Largest batch" not in out
    assert not planted.requests[0].largest_batch


def test_a_card_that_is_named_twice_is_one(planted, command):
    command("predict", "smoke", "--gpu", "t4", "--gpu", "Tesla T4", "--gpu", "24GiB")
    assert [gpu.name for gpu in planted.requests[0].gpus] == ["t4", "24GiB"]


@pytest.mark.parametrize("name", ["predict", "explain"])
def test_options_of_the_allocator_and_of_attention_are_passed_on(planted, command, name):
    command(name, "smoke", "--attention", "efficient", "--expandable-segments")
    (request,) = planted.requests
    assert (request.attention, request.expandable_segments) == ("efficient", True)


def test_predict_json_is_one_document_and_nothing_else(planted, command):
    code, out, err = command("predict", "smoke", "--gpu", "t4", "--json")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert [cell["max_length"] for cell in data["cells"]] == [16, 16, 32, 32]
    assert data["cells"][0]["cards"][0]["gpu"] == "t4"
    assert len(data["largest_batch"]) == 4


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_refused_cell_ends_predict_with_1(planted, command, more):
    planted.refused = (16,)
    code, out, _ = command("predict", "smoke", *more)
    assert code == EXIT_FINDING
    assert "training.optim: not covered" in out
    if more:
        assert [len(json.loads(out)[name]) for name in ("cells", "refused")] == [2, 2]


def test_explain_shows_one_cell(planted, command):
    code, out, err = command(
        "explain", "smoke", "--cell", "max_length=32,train_size=16", "--gpu", "t4"
    )
    assert (code, err) == (0, "")
    for text in ("What the peak consists of", "66.7%", "│", "The peak is reached in the backward"):
        assert text in out
    (request,) = planted.requests
    assert [(cell.max_length, cell.train_size) for cell in request.cells] == [(32, 16)]
    assert request.explain


def test_explain_of_several_cells_is_of_the_first(planted, command):
    code, _, err = command("explain", "smoke", "--cell", "max_length=32")
    assert code == 0
    assert "the first of 2 cells; --cell selects another" in err
    assert len(planted.requests[0].cells) == 1


def test_explain_json_is_one_document_and_nothing_else(planted, command):
    _, out, _ = command("explain", "smoke", "--cell", "max_length=32,train_size=16", "--json")
    (cell,) = json.loads(out)["cells"]
    assert cell["composition"]["moment"]["phase"] == "backward"
    assert (
        sum(role["nbytes"] for role in cell["composition"]["roles"])
        == (cell["tensors"]["value_bytes"])
    )


def test_explain_of_a_refused_cell_says_why(planted, command):
    planted.refused = (16, 32)
    code, out, err = command("explain", "smoke")
    assert (code, out) == (2, "")
    assert "training.optim: not covered" in err


@pytest.mark.parametrize("error", [PredictionError("no such patch point"), WorkerError("it died")])
@pytest.mark.parametrize("name", ["predict", "explain"])
def test_a_prediction_that_fails_is_told_on_stderr(planted, command, name, error):
    planted.error = error
    code, out, err = command(name, "smoke", "--json")
    assert (code, out) == (2, "")
    assert str(error) in err


def test_plan_shows_what_is_predicted(planted, command):
    code, out, err = command("plan", "smoke")
    assert (code, err) == (0, "ftbench: a note\n")
    assert "predicted GPU peak (tensors)" in out
    assert out.count("90.0 MiB") == 2  # cells that differ only in training examples are one row
    assert planted.requests[0].gpus == ()


def test_plan_json_has_what_is_predicted(planted, command):
    planted.refused = (16,)
    _, out, _ = command("plan", "smoke", "--json")
    peaks = [cell["predicted"] for cell in json.loads(out)["cells"]]
    assert peaks[:2] == [None, None]
    assert peaks[2]["value_bytes"] == predicted_cell("x").tensors.value_bytes


def test_a_plan_without_a_prediction_is_still_a_plan(planted, command):
    planted.error = WorkerError("it died")
    code, out, err = command("plan", "smoke")
    assert code == 0
    assert "smoke: 4 cells" in out
    assert "no predicted memory: it died" in err
    assert "predicted" not in out


def test_a_plan_of_data_that_cannot_be_used_is_refused(planted, command):
    planted.error = WorkloadError("no such column", where="workload.text_column")
    code, out, err = command("plan", "smoke")
    assert (code, out) == (2, "")
    assert "workload.text_column: no such column" in err


def test_a_plan_that_is_to_predict_nothing_asks_nothing(planted, command):
    command("plan", "smoke", "--no-predict")
    assert planted.requests == []


def test_an_interrupted_prediction_ends_with_130(planted, command):
    planted.error = Interrupted()
    code, _, err = command("predict", "smoke")
    assert (code, err) == (130, "ftbench: interrupted\n")


def test_a_terminated_prediction_ends_with_143(planted, command):
    planted.error = Terminated()
    assert command("predict", "smoke")[0] == 143


# Estimates


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A folder without results, which an estimate would look for."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("estimate", "smok", "--gpu", "l4"), "nearest:  smoke"),
        (("estimate", "smoke", "--gpu", "l44"), "nearest:  l4"),
        (("estimate", "smoke", "--gpu", "l4", "--usd-per-hour", "0"), "a number above 0"),
        (("estimate", "smoke", "--gpu", "l4", "--usd-per-hour", "nan"), "a number above 0"),
        (
            ("estimate", "smoke", "--gpu", "l4", "--usd-per-hour", "1", "--usd-per-hour", "2"),
            "as many prices as devices",
        ),
        (("estimate", "smoke", "--gpu", "l4", "--runs", "/none"), "not a run directory"),
        (("estimate", "smoke"), "nothing to estimate on"),
        (("estimate", "smoke", "--gpu", "l4", "--attention", "flush"), "nearest:  flash"),
    ],
)
def test_nothing_is_estimated_for_bad_input(planted, command, elsewhere, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert planted.requests == []


@pytest.mark.parametrize("option", ["--train-size", "--max-length", "--batch"])
def test_an_estimate_of_nothing_ends_with_2(planted, command, option):
    assert command("estimate", "smoke", "--gpu", "l4", option, "0")[0] == 2
    assert planted.requests == []


def test_runs_of_another_workload_are_refused(planted, command, run_directory):
    code, out, err = command("estimate", "smoke", "--gpu", "l4", "--runs", run_directory)
    assert (code, out) == (2, "")
    assert "runs of another workload" in err
    got, expected = (
        next(x for x in err.splitlines() if name in x) for name in ("got:", "expected:")
    )
    assert "eval_size 8;" in got
    assert "eval_size 16;" in expected


def test_an_estimate_asks_for_one_cell_with_its_work(planted, command, elsewhere):
    code, out, err = command(
        "estimate", "smoke", "--train-size", "25000", "--max-length", "512", "--batch", "4",
        "--gpu", "l4", "--gpu", "T4", "--usd-per-hour", "0.8",
        "--set", "training.num_train_epochs=1",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for text in (
        "length 512, batch 4, training examples 25,000 (6,250 steps",
        "On l4, 0.8 USD per hour",
        "roofline, not measured: 8.1 TFLOP/s fp32",
        "absent: no run of this kind was measured",
        "largest batch",
        "a note",
    ):
        assert text in out
    (request,) = planted.requests
    (cell,) = request.cells
    assert (cell.train_size, cell.max_length, cell.per_device_train_batch_size) == (25_000, 512, 4)
    assert [gpu.name for gpu in request.gpus] == ["l4", "t4"]
    assert request.work
    assert request.largest_batch


def test_an_estimate_as_json_is_one_document_and_nothing_else(planted, command, elsewhere):
    code, out, err = command("estimate", "smoke", "--gpu", "l4", "--json")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data["assumed"] == {
        "max_length": 32,
        "per_device_train_batch_size": 8,
        "train_size": 32,
    }
    time = data["devices"][0]["figures"]["time_s"]
    assert time["low"] < time["value"] < time["high"]


def test_an_estimate_of_a_refused_cell_ends_with_1(planted, command, elsewhere):
    planted.refused = (32,)
    code, out, _ = command("estimate", "smoke", "--gpu", "l4")
    assert code == EXIT_FINDING
    assert "absent: training.optim: not covered" in out


def test_without_a_card_the_estimate_is_for_the_machine_that_was_measured(
    planted, command, tmp_path
):
    loaded = load_profile("smoke")
    cells = expand(loaded, resolve_model(loaded.workload), resolve_data(loaded.workload)).cells
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_environment(environment())
    for one in cells:
        directory.write_record(record(one))
    code, out, _ = command("estimate", "smoke", "--runs", directory.path, "--train-size", "64")
    assert code == 0
    assert "On a processor" in out
    (request,) = planted.requests
    assert request.on_cpu
    assert request.gpus == ()
