"""`ftbench baseline` and `ftbench gate`: what the worker says is planted, the command line is in this process."""

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ftbench.base.units import MIB
from ftbench.execute import prediction_worker as forecast
from ftbench.plan.profile_file import load_profile
from ftbench.plan.resolve import resolve
from ftbench.records.prediction import LargestBatch, Refused
from ftbench.records.run_directory import RunDirectory
from ftbench.report.render.step_summary import LIMIT_BYTES
from tests.factories import (
    breakdown,
    environment,
    figure,
    measurement,
    part,
    predictions,
    record,
)

PEAK = 90 * 2**20


class Forecast:
    """In the place of `prediction_worker.forecast`: what each cell needs can be changed between two calls."""

    def __init__(self):
        self.more_bytes = 0
        self.largest = 28
        self.versions = (("torch", "2.13.0"),)
        self.refused = ""
        self.requests = []

    def __call__(self, request, engine, *, kept, on_progress):
        self.requests.append(request)
        names = [gpu.name for gpu in request.gpus]
        made = predictions(request, *names, versions=self.versions)
        parts = breakdown(part("aten::mm", PEAK), part("aten::gelu", self.more_bytes or 1))
        tensors = figure(1, certainty="exact").model_copy(
            update={"value_bytes": PEAK + self.more_bytes}
        )
        cells = tuple(
            one.model_copy(
                update={
                    "tensors": tensors,
                    "breakdown": parts if one.cell_id in request.breakdown_of else None,
                }
            )
            for one in made.cells
        )
        refused = tuple(
            Refused(cell_id=cell.cell_id, reason=self.refused)
            for cell in request.cells
            if self.refused
        )
        largest = tuple(
            LargestBatch(
                cell_id=request.cells[0].cell_id,
                gpu=name,
                max_length=16,
                certain=self.largest,
                possible=99,
                reserved=None,
            )
            for name in names
            if request.largest_batch
        )
        return made.model_copy(
            update={"cells": () if refused else cells, "refused": refused, "largest": largest}
        )


@pytest.fixture
def planted(monkeypatch, tmp_path):
    made = Forecast()
    monkeypatch.setattr(forecast, "forecast", made)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def written(planted, command, tmp_path):
    code, out, _ = command("baseline", "write", "smoke", "--gpu", "t4")
    assert code == 0, out
    return tmp_path / "reports" / "baselines" / "smoke.json"


def test_a_baseline_is_written_where_the_gate_looks(written, command):
    assert written.exists()
    code, out, _ = command("gate", "smoke")
    assert code == 0
    assert "The gate holds: 4 cells" in out


def test_the_gate_asks_for_the_baseline_s_cards_and_writes_nothing(written, planted, command):
    before = written.read_bytes()
    planted.more_bytes = 512
    command("gate", "smoke")
    assert [gpu.name for gpu in planted.requests[-1].gpus] == ["t4"]
    assert written.read_bytes() == before


def test_a_baseline_is_not_written_twice(written, command):
    code, _, err = command("baseline", "write", "smoke")
    assert code == 2
    assert "ftbench baseline update" in err


def test_more_bytes_fail_and_the_part_is_named(written, planted, command):
    planted.more_bytes = 512
    code, out, _ = command("gate", "smoke")
    assert code == 1
    assert "The gate fails" in out
    assert "+511 B, activations, layer.*, aten.gelu" in out


def test_the_command_in_the_message_accepts_the_change(planted, command, tmp_path):
    given = ("--baseline", tmp_path / "a b.json", "--set", "training.bf16=true")
    assert command("baseline", "write", "smoke", *given)[0] == 0
    planted.more_bytes = 512
    code, out, _ = command("gate", "smoke", *given, "--only", "max_length=16")
    typed = shlex.split(re.search("`ftbench (baseline update .*)`", out)[1])
    assert (code, typed[2:3]) == (1, ["smoke"])
    _, shown, _ = command(*typed)
    assert shlex.join([*typed, "--yes"]) in shown
    assert command(*typed, "--yes")[0] == 0
    assert command("gate", "smoke", *given)[0] == 0


def test_a_smaller_batch_fails(written, planted, command):
    planted.largest = 24
    code, out, _ = command("gate", "smoke")
    assert code == 1
    assert "t4 largest batch" in out


def test_within_a_tolerance_it_holds(written, planted, command):
    planted.more_bytes = 512
    assert command("gate", "smoke", "--tolerance", "1KiB")[0] == 0
    assert command("gate", "smoke", "--tolerance", "much")[0] == 2


def test_other_versions_are_judged_when_that_is_asked_for(written, planted, command):
    planted.versions = (("torch", "2.14.0"),)
    code, out, _ = command("gate", "smoke")
    assert code == 2
    assert "torch 2.13.0 -> 2.14.0" in out
    assert command("gate", "smoke", "--across-versions")[0] == 0
    planted.more_bytes = 512
    code, out, _ = command("gate", "smoke", "--across-versions")
    assert code == 1
    assert "the change came with torch 2.13.0 -> 2.14.0" in out


def test_without_a_baseline_nothing_can_be_judged(planted, command):
    bf16 = ("--set", "training.bf16=true")
    code, out, _ = command("gate", "smoke", *bf16, "--comment", "comment.md")
    assert code == 2
    assert "`ftbench baseline write smoke --set training.bf16=true` makes it" in out
    assert "cannot judge" in Path("comment.md").read_text()


def test_what_cannot_be_predicted_has_no_baseline(planted, command, tmp_path):
    planted.refused = "training.optim: not covered"
    code, _, err = command("baseline", "write", "smoke")
    assert code == 2
    assert "not covered" in err
    assert not (tmp_path / "reports").exists()


def test_what_cannot_be_predicted_now_is_not_judged(written, planted, command):
    planted.refused = "training.optim: not covered"
    code, out, _ = command("gate", "smoke")
    assert code == 2
    assert "not covered" in out


def test_an_update_shows_what_changes_and_writes_it_when_told(written, planted, command):
    planted.more_bytes = 512
    before = written.read_bytes()
    code, out, err = command("baseline", "update", "smoke")
    assert code == 2
    assert "aten.gelu" in out
    assert "--yes" in err
    assert written.read_bytes() == before
    assert command("baseline", "update", "smoke", "--yes")[0] == 0
    assert command("gate", "smoke")[0] == 0


def test_an_update_of_nothing_says_so(written, command):
    code, out, _ = command("baseline", "update", "smoke")
    assert code == 0
    assert "nothing to write" in out


def test_another_file_may_be_named(planted, command, tmp_path):
    file = tmp_path / "mine.json"
    assert command("baseline", "write", "smoke", "--baseline", file)[0] == 0
    assert command("gate", "smoke", "--baseline", file)[0] == 0


def test_a_changed_setting_is_compared_and_accepted(written, planted, command):
    change = ("--set", "training.bf16=true")
    assert command("gate", "smoke", *change)[0] == 0  # as many bytes
    planted.more_bytes = 512
    code, out, _ = command("gate", "smoke", *change)
    assert code == 1
    assert "bf16 off -> on" in out
    assert "aten.gelu" in out
    assert command("baseline", "update", "smoke", *change, "--yes")[0] == 0
    assert command("gate", "smoke", *change)[0] == 0


def test_a_default_written_out_is_no_change(written, command):
    code, out, _ = command("gate", "smoke", "--set", "training.max_grad_norm=1.0")
    assert code == 0
    assert "max_grad_norm" not in out


def test_another_workload_is_not_judged(written, command):
    code, out, _ = command("gate", "smoke", "--set", "workload.shuffle_seed=1")
    assert code == 2
    assert "shuffle_seed 42 -> 1" in out


def test_an_axis_has_one_value_in_a_selection(written, command):
    code, out, err = command("gate", "smoke", "--only", "max_length=16,max_length=32")
    assert code == 2
    assert "max_length=16,max_length=32" in out + err


def test_a_part_of_the_cells_can_be_gated(written, planted, command):
    code, out, _ = command("gate", "smoke", "--only", "max_length=16")
    assert "cannot" not in out
    assert code == 0
    assert len(planted.requests[-1].cells) < 4


def test_an_update_shows_figures_under_another_workload(written, planted, command):
    planted.more_bytes = 512
    _, out, _ = command("baseline", "update", "smoke", "--set", "training.bf16=true")
    assert "What changes in" in out
    assert "bf16" in out
    assert "aten.gelu" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "new.json", "--base", "old.json", "--require-time"),
        ("gate", "new.json", "--base", "old.json", "--only", "max_length=16"),
        ("gate", "smoke", "--require-time"),
        ("gate", "smoke", "--base", "other"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(written, command, arguments):
    code, out, _ = command(*arguments)
    assert code == 2
    assert "does not apply to" in out


def test_a_profile_that_cannot_be_used_is_shown_by_the_forge_too(written, command, tmp_path):
    code, out, _ = command("gate", "smoke", "--set", "training.nonsense=1", "--comment", "c.md")
    assert code == 2
    assert "nonsense" in out
    assert "cannot judge" in Path("c.md").read_text()


@pytest.mark.parametrize(("more_bytes", "code"), [(0, 0), (512, 1)])
@pytest.mark.parametrize("option", ["--junit", "--comment", "--html"])
def test_a_verdict_stands_though_its_file_cannot_be_written(
    written, planted, command, option, more_bytes, code
):
    planted.more_bytes = more_bytes
    Path("file").write_text("")
    found, out, err = command("gate", "smoke", option, "file/gate.xml")
    assert ("The gate fails" in out) == bool(code)
    assert (found, "file/gate.xml was not written" in err) == (code, True)


def test_files_for_a_forge(written, planted, command, tmp_path, monkeypatch):
    planted.more_bytes = 512
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    junit, comment = tmp_path / "gate.xml", tmp_path / "comment.md"
    assert command("gate", "smoke", "--junit", junit, "--comment", comment)[0] == 1
    assert ElementTree.parse(junit).getroot().get("failures") == "4"
    assert "aten.gelu" in comment.read_text()
    assert "The gate fails" in summary.read_text()
    assert "aten.gelu" in summary.read_text()


@pytest.mark.parametrize("before", [LIMIT_BYTES - 6000, LIMIT_BYTES])
def test_a_summary_stays_under_what_github_drops(
    written, planted, command, tmp_path, monkeypatch, before
):
    planted.more_bytes = 512
    summary = tmp_path / "summary.md"
    summary.write_text("x" * before)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    code, _, err = command("gate", "smoke")
    assert code == 1  # a summary that has no room changes no verdict
    assert summary.stat().st_size <= LIMIT_BYTES
    assert ("no step summary" in err) == (before == LIMIT_BYTES)


def test_json_is_one_document(written, planted, command):
    planted.more_bytes = 512
    code, out, _ = command("gate", "smoke", "--json")
    assert code == 1
    assert json.loads(out)["exit_code"] == 1


def test_a_file_of_another_layout_is_written_anew_and_no_figure_changes(written, command):
    text = written.read_text()
    written.write_text(json.dumps(json.loads(text)))
    code, out, _ = command("baseline", "update", "smoke")
    assert code == 2  # nobody to ask
    assert "no figure" in out
    assert command("baseline", "update", "smoke", "--yes")[0] == 0
    assert written.read_text() == text


# Measured runs


@pytest.fixture
def runs(planted, tmp_path):
    """Write a run directory of the smoke profile: three runs per cell, which need so much more RSS than usual."""

    def write(name, more_bytes=0, status="ok", cells=None):
        directory = RunDirectory.create(tmp_path / name)
        directory.write_environment(environment())
        for cell in resolve(load_profile("smoke")).cells[:cells]:
            for repeat in range(3):
                peak = 500 * MIB + more_bytes + repeat
                found = measurement(memory={"peak_rss_bytes": peak}) if status == "ok" else None
                directory.write_record(
                    record(cell, repeat=repeat, measurement=found, status=status)
                )
        return directory.path

    return write


def test_runs_are_kept_in_a_baseline_and_held_to_it(runs, command):
    first = runs("first")
    assert command("baseline", "write", "smoke", "--runs", first)[0] == 0
    assert command("gate", "smoke", "--runs", runs("second", MIB // 2))[0] == 0
    code, out, _ = command("gate", "smoke", "--runs", runs("third", 50 * MIB), "--json")
    assert code == 1
    assert {change["type"] for change in json.loads(out)["changes"]} == {"measured peak"}
    assert json.loads(out)["judged"] == 4


def test_runs_are_compared_with_those_of_another_directory(runs, command):
    sides = ("--runs", runs("new", 50 * MIB), "--base", runs("old"))
    code, out, _ = command("gate", "smoke", *sides, "--only", "max_length=16", "--json")
    assert code == 1
    assert json.loads(out)["judged"] == 2
    assert command("gate", "smoke", *sides, "--baseline", "x.json")[0] == 2


def test_cells_that_neither_directory_has_are_not_judged(runs, command):
    sides = ("--runs", runs("new", cells=3), "--base", runs("old", cells=3))
    code, out, _ = command("gate", "smoke", *sides)
    assert code == 2
    assert "1 cell of the profile" in out


def test_runs_that_did_not_finish_are_no_baseline(runs, command, tmp_path):
    code, _, err = command("baseline", "write", "smoke", "--runs", runs("bad", status="crashed"))
    assert code == 2
    assert "12 runs ended as crashed" in err
    assert not (tmp_path / "reports").exists()


def test_an_update_keeps_the_runs_unless_there_are_others(runs, planted, command, tmp_path):
    command("baseline", "write", "smoke", "--runs", runs("first"))
    file = tmp_path / "reports" / "baselines" / "smoke.json"
    kept = json.loads(file.read_text())["measured"]
    planted.more_bytes = 512
    assert command("baseline", "update", "smoke", "--yes")[0] == 0
    assert json.loads(file.read_text())["measured"] == kept
    second = runs("second", MIB)
    assert command("baseline", "update", "smoke", "--runs", second, "--yes")[0] == 0
    assert json.loads(file.read_text())["measured"] != kept


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "smoke", "--measured", "x"),
        ("gate", "smoke", "--time"),
        ("baseline", "write", "smoke", "--measured", "x"),
        ("run", "smoke", "--mixed"),
    ],
)
def test_old_spellings_of_options_are_gone(planted, command, arguments):
    code, _, err = command(*arguments)
    assert code == 2
    assert "No such option" in err
