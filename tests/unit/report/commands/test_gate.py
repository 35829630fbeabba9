"""The gate's result as a person, a forge and a CI server read it."""

import json
from xml.etree import ElementTree

import pytest

from ftbench.base.units import MIB
from ftbench.gating.attribution import ChangedPart
from ftbench.gating.places import NamedSteps, Place
from ftbench.gating.reasons import Failed, VersionChange
from ftbench.gating.result import (
    Attribution,
    BytesChange,
    FitChange,
    GateResult,
    LargestBatchChange,
    SlopeChange,
)
from ftbench.plan.groups import CellShape
from ftbench.records.prediction import Moment
from ftbench.report.commands.gate import (
    cause_words,
    changes_table,
    gate_document,
    gate_json,
    gate_junit,
    gate_markdown,
    headline,
    lines,
)
from ftbench.report.render.step_summary import render as render_summary

SHAPE = CellShape(max_length=512, per_device_train_batch_size=16)
SMALL = CellShape(max_length=64, per_device_train_batch_size=4)
CELL = "length 512, batch 16"
HERE = Moment(phase="backward", step=3, module="layer", operator="aten::mm")
JUDGED = (Place({}, SHAPE), Place({}, SMALL))
EAGER = {"attn_implementation": "eager"}
TORCH = VersionChange("torch", "2.13.0", "2.14.0")
SOFTMAX = ChangedPart(
    "activations",
    "distilbert.transformer.layer.*.attention",
    "aten::_softmax",
    int(12.6 * MIB),
    "peak",
    dtype_before="bfloat16",
    dtype_after="float32",
    source="transformers/models/distilbert/modeling_distilbert.py:138",
)


def change(verdict="regression", *, kind="requested", cell=SHAPE, settings=None):
    return BytesChange(Place(settings or {}, cell), kind, None, 100 * MIB, 112 * MIB, verdict)


def result(*changes, changed_parts=(), **fields):
    parts = tuple(changed_parts)
    found = (Attribution({}, SHAPE, 100 * MIB, 12 * MIB, parts, (HERE, HERE)),) if parts else ()
    values = {"profile": "quick", "judged": JUDGED, "changes": changes, "attributions": found}
    return GateResult(**(values | fields))


ACCEPT = ("ftbench", "baseline", "update", "a b.toml", "--set", "training.bf16=true")
TYPED = "ftbench baseline update 'a b.toml' --set training.bf16=true"
FAILED = result(change(), changed_parts=[SOFTMAX], accept=ACCEPT)


@pytest.mark.parametrize(
    ("found", "figures"),
    [
        (result(), ["holds", "2 cells"]),
        (FAILED, ["fails", "1 regression", "2 cells"]),
        (
            result(change(), change("improvement"), change("improvement")),
            ["fails", "1 regression", "2 improvements"],
        ),
        (result(unjudged=(Failed("x"),)), ["cannot judge", "1 reason"]),
        (result(change("explained", kind="reserved")), ["holds", "1 other change "]),
    ],
)
def test_a_verdict_says_what_and_how_many(found, figures):
    said = headline(found)
    places = [said.index(figure) for figure in figures]
    assert places == sorted(places)


def test_figures_that_changed_are_rows():
    rows = changes_table(
        [
            change(),
            FitChange(Place({}, SHAPE), "t4", "fits", "does not fit", "regression"),
            SlopeChange({}, "max_length", 16, 256, 512, 22.5, 23.0, "regression"),
            LargestBatchChange({}, "t4", 512, 28, 32, "improvement"),
        ]
    ).rows
    assert rows[0][0] == CELL
    assert rows[0][2:] == ("104,857,600", "117,440,512", "+12.0 MiB", "regression")
    assert rows[1][2:4] == ("fits", "does not fit")
    assert rows[2][2:5] == ("22.5", "23", "+0.5")
    assert rows[3][2:] == ("28", "32", "+4", "improvement")


def test_groups_and_notes_are_columns_if_there_are_any():
    assert changes_table([change()]).columns[0] == "cell"
    table = changes_table([change(settings=EAGER), change()])
    assert table.columns[0] == "group"
    assert table.rows[0][0] == "attn_implementation eager"
    assert len(table.numeric) == len(table.columns) == len(table.rows[0])
    assert "note" not in table.columns


def test_what_accepts_a_change_is_said_and_then_what_changed():
    said = list(lines(FAILED))
    assert f"`{TYPED}`" in said[0]
    assert "+12.0 MiB" in said[1]
    assert "aten._softmax" in said[2]


def test_without_a_command_that_accepts_none_is_named():
    assert not any("accept" in line for line in lines(result(change())))


def test_files_name_the_command_that_accepts_a_change():
    (failure,) = ElementTree.fromstring(gate_junit(FAILED)).iter("failure")
    assert failure.text.endswith(f"`{TYPED}`")
    assert gate_json(FAILED)["accept"] == TYPED
    assert f"`{TYPED}`" in gate_markdown(FAILED)
    assert gate_json(result(change()))["accept"] is None


def test_a_job_s_summary_has_the_verdict_and_the_table_of_changes():
    text = render_summary(gate_document(FAILED))
    assert headline(FAILED) in text
    assert "| 104,857,600 | 117,440,512 |" in text
    assert TYPED in text


def test_an_improvement_says_why_it_fails_alone_and_beside_a_regression():
    better, worse = change("improvement"), change()
    said = [set(lines(result(*changes))) for changes in ((better,), (worse,), (better, worse))]
    assert said[0] > said[1]
    assert said[2] == said[0]


def test_explained_changes_are_explained_and_nothing_is_to_be_accepted():
    (said,) = lines(result(change("explained", kind="reserved")))
    assert said.startswith("explained")


def test_the_package_that_changed_is_named():
    transformers = VersionChange("transformers", "5.23.0", None)
    assert "torch 2.13.0 -> 2.14.0" in " ".join(cause_words(result(change(), versions=(TORCH,))))
    both = " ".join(cause_words(result(change(), versions=(TORCH, transformers))))
    assert "torch 2.13.0 -> 2.14.0, transformers 5.23.0 -> none" in both
    assert list(cause_words(result(versions=(TORCH,)))) == []
    assert any("torch 2.13.0 -> 2.14.0" in line for line in lines(result(versions=(TORCH,))))


def test_a_comment_says_it_all_and_breaks_out_of_nothing():
    bad = change(cell=NamedSteps(name="<b>|"))
    text = gate_markdown(result(bad, changed_parts=[SOFTMAX], profile="<i>"))
    assert text.startswith("### ftbench: memory of `")
    assert "- +12.6 MiB, activations" in text
    assert "<b>" not in text
    many = gate_markdown(result(*(change(cell=NamedSteps(name=f"cell {n}")) for n in range(500))))
    assert len(many) < 65_536
    assert "460 more figures" in many


def test_junit_has_a_case_per_cell():
    suite = ElementTree.fromstring(gate_junit(FAILED))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "tensors: 104,857,600 -> 117,440,512 (+12.0 MiB)"
    assert "aten._softmax" in failure.text
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names == [CELL, "length 64, batch 4"]


def test_junit_has_a_case_for_what_is_of_no_cell_and_keeps_groups_apart():
    slope = SlopeChange(EAGER, "max_length", 16, 256, 512, 22.5, 23.0, "regression")
    suite = ElementTree.fromstring(gate_junit(result(slope, change(settings=EAGER))))
    cases = [(case.get("classname"), case.find("failure") is not None) for case in suite]
    assert cases == [
        ("ftbench.quick", False),
        ("ftbench.quick", False),
        ("ftbench.quick [attn_implementation eager]", True),
        ("ftbench.quick [attn_implementation eager]", True),
    ]


def test_junit_of_what_could_not_be_judged_is_an_error():
    suite = ElementTree.fromstring(gate_junit(result(unjudged=(Failed("no baseline\x00"),))))
    (error,) = suite.iter("error")
    assert error.get("message") == "no baseline"
    assert suite.get("errors") == "1"


def test_json_has_values():
    slope = SlopeChange(EAGER, "max_length", 16, 256, 512, 22.5, 23.0, "regression")
    found = result(
        change(), slope, changed_parts=[SOFTMAX], versions=(TORCH,), unjudged=(Failed("why"),)
    )
    data = json.loads(json.dumps(gate_json(found)))
    assert data["exit_code"] == 1
    first, second = data["changes"]
    assert (first["type"], first["after"]) == ("bytes", 112 * MIB)
    assert first["place"]["cell"]["max_length"] == 512
    assert (second["type"], second["settings"], second["low"]) == ("slope", EAGER, 256)
    assert data["attributions"][0]["changed_parts"][0]["operator"] == "aten::_softmax"
    assert data["versions"] == [{"package": "torch", "before": "2.13.0", "after": "2.14.0"}]
    assert data["unjudged"] == ["why"]
