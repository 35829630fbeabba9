"""Programs on the command line: what is asked of the worker, what is shown, and which options are refused."""

import json

import pytest

from ftbench.base.errors import ProfileError
from ftbench.cli.subjects import numbers_of_gpus, subject_of
from ftbench.execute import prediction_worker
from ftbench.plan.gpus import load_gpus
from ftbench.records.prediction import Growth, ProgramRequest, Refused
from ftbench.verbs.cards import gpus_of
from ftbench.verbs.subjects import baseline_name, shown_name
from tests.factories import breakdown, composition, figure, part, predicted_cell, predictions

PEAK = 90 * 2**20


class Worker:
    """In the place of `prediction_worker.forecast`: what each set of arguments needs can be changed."""

    def __init__(self):
        self.more_bytes = 0
        self.changes = {}
        self.requests = []
        self.refused = ()

    def __call__(self, request, engine, *, kept, on_progress):
        self.requests.append(request)
        tensors = figure(1, certainty="exact").model_copy(
            update={"value_bytes": PEAK + self.more_bytes}
        )
        parts = breakdown(part("aten::mm", PEAK + self.more_bytes, source="train.py:7"))
        cells = tuple(
            predicted_cell(
                cell.cell_id,
                *(gpu.name for gpu in request.gpus),
                tensors=tensors,
                composition=composition() if request.explain else None,
                breakdown=parts if cell.cell_id in request.breakdown_of else None,
                **self.changes,
            )
            for cell in request.cells
            if cell.cell_id not in {one.cell_id for one in self.refused}
        )
        return predictions(request, cells=cells, refused=self.refused)


@pytest.fixture
def worker(monkeypatch, tmp_path):
    made = Worker()
    monkeypatch.setattr(prediction_worker, "forecast", made)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("def make_step(device, batch=8): ...\n")
    return made


PROGRAM = "train.py:make_step"
GRID = ("--arg", "batch=[4, 8]", "--arg", "name=gpt")


def test_a_program_is_predicted_with_all_combinations_on_the_cards(worker, command):
    code, out, _ = command("predict", PROGRAM, *GRID, "--gpu", "t4", "--steps", "5")
    assert code == 0
    (request,) = worker.requests
    assert isinstance(request, ProgramRequest)
    assert request.program.name == PROGRAM
    assert [dict(cell.values) for cell in request.cells] == [
        {"batch": 4, "name": "gpt"},
        {"batch": 8, "name": "gpt"},
    ]
    assert {cell.steps for cell in request.cells} == {5}
    assert [gpu.name for gpu in request.gpus] == ["t4"]
    rows = [line.split() for line in out.splitlines()]
    assert ["batch", "name", "tensors", "t4"] in rows
    assert ["4", "gpt", "90.0", "MiB", "120", "MiB"] in [row[:6] for row in rows]


def test_options_of_predictions_reach_the_worker(worker, command):
    command("predict", PROGRAM, "--attention", "math", "--expandable-segments")
    (request,) = worker.requests
    assert (request.attention, request.expandable_segments) == ("math", True)
    assert (request.explain, request.breakdown_of) == (False, ())
    assert request.cells[0].steps is None


def test_the_default_number_of_steps_is_not_another_identity(worker, command):
    command("predict", PROGRAM, "--steps", "3")
    command("predict", PROGRAM)
    assert worker.requests[0].cells == worker.requests[1].cells


def test_only_and_cell_select_by_arguments(worker, command):
    command("predict", PROGRAM, *GRID, "--only", "batch=8")
    assert [cell.values["batch"] for cell in worker.requests[-1].cells] == [8]
    code, _, err = command("explain", PROGRAM, *GRID)
    assert (code, len(worker.requests[-1].cells)) == (0, 1)
    assert "the first of 2 cells" in err
    command("explain", PROGRAM, *GRID, "--cell", "batch=8")
    (cell,) = worker.requests[-1].cells
    assert cell.values["batch"] == 8
    code, _, err = command("predict", PROGRAM, *GRID, "--only", "batch=9")
    assert (code, "one of 4, 8" in err) == (2, True)


def test_json_has_the_arguments_by_themselves(worker, command):
    _, out, _ = command("predict", PROGRAM, *GRID, "--json")
    data = json.loads(out)
    assert data["program"] == PROGRAM
    assert [cell["arguments"] for cell in data["cells"]] == [
        {"batch": 4, "name": "gpt"},
        {"batch": 8, "name": "gpt"},
    ]
    assert "profile" not in data


def test_what_steps_keep_is_told_with_its_arguments(worker, command):
    worker.changes = {"growth": Growth(nbytes=2048, steps=1, parts=())}
    code, out, _ = command("predict", PROGRAM, "--arg", "batch=4")
    assert code == 0
    assert "batch 4: steps keep ever more memory: " in out
    assert "(2,048 bytes)" in out
    _, out, _ = command("explain", PROGRAM)
    assert "(2,048 bytes)" in out


def test_a_refused_cell_is_a_finding(worker, command):
    (cell,) = subject_of(PROGRAM).grid.cells
    worker.refused = (Refused(cell_id=cell.cell_id, reason="aten::nonzero is refused"),)
    code, out, _ = command("predict", PROGRAM)
    assert code == 1
    assert "not predicted: aten::nonzero is refused" in out
    code, _, err = command("explain", PROGRAM)
    assert (code, "aten::nonzero" in err) == (2, True)


def test_a_baseline_is_written_compared_and_updated(worker, command, tmp_path):
    file = tmp_path / "reports" / "baselines" / "train.make_step.json"
    code, out, _ = command("baseline", "write", PROGRAM, *GRID, "--gpu", "t4")
    assert code == 0
    assert "2 cells in 2 groups" in out
    assert len(worker.requests[-1].breakdown_of) == 2
    assert json.loads(file.read_text())["workload"]["program"] == PROGRAM

    code, out, _ = command("gate", PROGRAM, *GRID)
    assert (code, "2 cells match" in out) == (0, True)
    assert [gpu.name for gpu in worker.requests[-1].gpus] == ["t4"]

    worker.more_bytes = 512
    code, out, _ = command("gate", PROGRAM, *GRID, "--only", "batch=8")
    assert code == 1
    assert "arg.batch 8: step: the peak rose from" in out
    assert "+512 B, activations, layer.*, aten.mm (train.py:7)" in out
    assert "arg.batch 4" not in out

    code, out, _ = command("baseline", "update", PROGRAM, *GRID, "--yes")
    assert code == 0
    code, out, _ = command("gate", PROGRAM, *GRID)
    assert code == 0


def test_a_changed_argument_is_named_by_the_gate(worker, command):
    command("baseline", "write", PROGRAM, "--arg", "batch=8")
    worker.more_bytes = 512
    code, out, _ = command("gate", PROGRAM, "--arg", "batch=16")
    assert code == 1
    assert "the change came with the setting arg.batch 8 -> 16" in out


def test_an_error_of_the_program_cannot_be_judged(worker, command):
    command("baseline", "write", PROGRAM)
    code, out, _ = command("gate", PROGRAM, "--arg", "1=2")
    assert code == 2
    assert "not an argument" in out


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("predict", PROGRAM, "--set", "grid.x=1"), "--set"),
        (("explain", PROGRAM, "--set", "grid.x=1"), "--set"),
        (("predict", "smoke", "--arg", "batch=1"), "--arg"),
        (("explain", "smoke", "--steps", "5"), "--steps"),
        (("baseline", "write", "smoke", "--arg", "a=1"), "--arg"),
        (("baseline", "write", PROGRAM, "--runs", "results/x"), "--runs"),
        (("baseline", "update", PROGRAM, "--runs", "results/x", "--baseline", "b.json"), "--runs"),
    ],
)
def test_an_option_without_a_meaning_is_refused_by_name(worker, command, arguments, option):
    command("baseline", "write", PROGRAM, "--baseline", "b.json")
    asked = len(worker.requests)
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith(f"ftbench: {option}: this option applies to ")
    assert len(worker.requests) == asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((PROGRAM, "--runs", "results/x"), "--runs applies to profiles only"),
        ((PROGRAM, "--base", "results/x"), "--base does not apply"),
        ((PROGRAM, "--require-time"), "--require-time does not apply"),
        ((PROGRAM, "--set", "a=1"), "--set: this option applies to profiles only"),
        (("new.json", "--arg", "a=1"), "--arg does not apply to benchmarks"),
    ],
)
def test_the_gate_refuses_them_as_well(worker, command, arguments, said):
    command("baseline", "write", PROGRAM)
    code, out, _ = command("gate", *arguments)
    assert code == 2
    assert said in out


def test_names_of_subjects():
    assert [shown_name(text) for text in ("quick", "a/quick.toml", PROGRAM)] == [
        "quick",
        "quick",
        PROGRAM,
    ]
    assert baseline_name("a/quick.toml") == "quick"


def test_a_program_s_baseline_has_its_folder_in_its_name(worker, tmp_path):
    (tmp_path / "loops").mkdir()
    (tmp_path / "loops" / "gpt.py").write_text("")
    assert baseline_name("loops/gpt.py:make_step") == "loops.gpt.make_step"
    with pytest.raises(ProfileError, match="no such file"):
        baseline_name("loops/gtp.py:make_step")


def test_all_cards_of_the_catalogue():
    assert [gpu.name for gpu in gpus_of(["all"])] == list(load_gpus())
    assert [gpu.name for gpu in gpus_of(["t4", "all"])][:2] == ["t4", next(iter(load_gpus()))]
    assert len(gpus_of(["t4", "all"])) == len(load_gpus())


@pytest.mark.parametrize(
    ("text", "numbers"), [("8", (8,)), ("1,2,4", (1, 2, 4)), ("1..3", (1, 2, 3)), ("2,2", (2,))]
)
def test_numbers_of_gpus(text, numbers):
    assert numbers_of_gpus(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "two", "1..", "4..2", "-1", "1,,2", "1e9", "100000"])
def test_what_is_no_number_of_gpus_is_refused(text):
    with pytest.raises(ProfileError, match="GPUs"):
        numbers_of_gpus(text)


def test_several_gpus_of_a_profile_are_its_axis_of_processes():
    asked = subject_of("quick", only="max_length=64,num_processes=4", gpus="1,4")
    assert [axis.values for axis in asked.whole.axes if axis.name == "num_processes"] == [(1, 4)]
    chosen = asked.grid.cells
    assert {(cell.max_length, cell.num_processes) for cell in chosen} == {(64, 4)}
    assert {cell.parallel.strategy for cell in chosen} == {"ddp"}
    assert len(asked.whole.cells) == 2 * len(subject_of("quick").whole.cells)
