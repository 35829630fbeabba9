"""The gate's result as a person, a forge and a CI server read it."""

import json
from xml.etree import ElementTree

import pytest

from ftbench.base.units import MIB
from ftbench.gate.attribution import ChangedPart
from ftbench.gate.compare import Attribution, Change, GateResult, Moved
from ftbench.report.commands.gate import (
    MOST_CHANGED_PARTS,
    changed_part_words,
    changes_table,
    gate_json,
    gate_junit,
    gate_markdown,
    headline,
    lines,
    package_words,
    signed,
)

CELL = "length 512, batch 16"
JUDGED = (("", CELL), ("", "length 64, batch 4"))
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


def change(before=100 * MIB, after=112 * MIB, kind="requested", verdict="regression", **changes):
    fields = {"group": "", "where": CELL, "kind": kind, "of": "", "verdict": verdict}
    return Change(**(fields | {"before": before, "after": after} | changes))


def result(*changes, changed_parts=(), **fields):
    found = (Attribution("", CELL, 12 * MIB, tuple(changed_parts)),) if changed_parts else ()
    return GateResult(
        **(
            {"profile": "quick", "judged": JUDGED, "changes": changes, "attributions": found}
            | fields
        )
    )


FAILED = result(change(), changed_parts=[SOFTMAX])


def test_a_verdict_in_a_sentence():
    assert headline(result()) == "The gate holds: 2 cells need what the baseline says."
    assert headline(FAILED) == "The gate fails: of 2 cells 1 figure grew or got worse."
    both = result(change(), change(verdict="drop"), change(verdict="drop"))
    assert "1 figure grew or got worse and 2 figures dropped" in headline(both)
    assert headline(result(unjudged=("x",))) == "The gate cannot judge: 1 reason below."
    explained = result(change(kind="reserved", verdict="explained"))
    assert "1 figure moved that may" in headline(explained)


def test_a_culprit_is_named_in_full():
    assert changed_part_words(SOFTMAX) == (
        "+12.6 MiB, activations, distilbert.transformer.layer.*.attention, aten._softmax saved in fp32 (was bf16)"
        " (transformers/models/distilbert/modeling_distilbert.py:138)"
    )


def test_state_has_no_operator():
    found = ChangedPart("parameters", "pooled", "", 512, "peak")
    assert changed_part_words(found) == "+512 B, parameters, pooled"


@pytest.mark.parametrize(
    ("mark", "said"),
    [("before a step", "kept from one step to the next"), ("most", "the most that it ever is")],
)
def test_where_it_was_seen_is_said(mark, said):
    assert said in changed_part_words(ChangedPart("temporaries", "m", "aten::mul", MIB, mark))


@pytest.mark.parametrize(("delta", "text"), [(512, "+512 B"), (-MIB, "-1.0 MiB")])
def test_signed(delta, text):
    assert signed(delta) == text


def test_figures_are_shown_to_the_byte():
    (row,) = changes_table([change(100, 612)]).rows
    assert row == (CELL, "tensors", "100", "612", "+512 B", "more")


def test_batches_and_what_fits_are_no_bytes():
    table = changes_table(
        [
            change(28, 24, "largest batch", of="t4", where="length 512"),
            change("fits", "does not fit", "fits", of="t4"),
            change(22.5, 23.0, "slope", where="bytes a sample at length 512"),
        ]
    )
    assert table.rows[0] == ("length 512", "t4 largest batch", "28", "24", "-4", "worse")
    assert table.rows[1][2:4] == ("fits", "does not fit")
    assert table.rows[2][2:5] == ("22.5", "23", "+0.5")


def test_groups_are_a_column_where_there_are_several():
    table = changes_table([change(group="attn_implementation eager"), change()])
    assert table.columns[0] == "group"


def test_what_is_said_below():
    said = list(lines(FAILED))
    assert "ftbench baseline update" in said[0]
    assert said[1] == f"what moved at {CELL}, whose peak is another by +12.0 MiB:"
    assert "aten._softmax" in said[2]
    assert "mine" in next(iter(lines(FAILED, accept="mine")))


def test_many_changed_parts_are_summed_up():
    many = [
        ChangedPart("activations", f"m{n}", "aten::mm", MIB, "peak")
        for n in range(MOST_CHANGED_PARTS + 3)
    ]
    assert "  +3.0 MiB in 3 more parts" in list(lines(result(change(), changed_parts=many)))


def test_a_drop_says_why_it_fails():
    assert any("hide the next rise" in line for line in lines(result(change(verdict="drop"))))


def test_a_drop_says_why_it_fails_beside_a_regression_too():
    drop, rise = change(verdict="drop"), change()
    said = [set(lines(result(*changes))) for changes in ((drop,), (rise,), (drop, rise))]
    assert said[0] > said[1]
    assert said[2] == said[0]


def test_the_package_that_moved_is_named():
    torch = Moved("torch", "2.13.0", "2.14.0")
    transformers = Moved("transformers", "5.23.0", "5.24.0")
    assert package_words(result(change(), versions=(torch,))) == (
        "the change came with torch 2.13.0 -> 2.14.0"
    )
    both = result(change(), changed_parts=[SOFTMAX], versions=(torch, transformers))
    assert package_words(both) == (
        "the change came with torch 2.13.0 -> 2.14.0, transformers 5.23.0 -> 5.24.0:"
        " one at a time would tell which"
    )
    assert package_words(result(versions=(torch,))) == ""


def test_a_comment_says_it_all_and_breaks_out_of_nothing():
    text = gate_markdown(result(change(where="<b>|"), changed_parts=[SOFTMAX], profile="<i>"))
    assert text.startswith("### ftbench: memory of `")
    assert "- +12.6 MiB, activations" in text
    assert "<b>" not in text
    many = gate_markdown(result(*(change(where=f"cell {n}") for n in range(500))))
    assert len(many) < 65_536
    assert "460 more figures moved." in many


def test_junit_has_a_case_a_cell():
    suite = ElementTree.fromstring(gate_junit(FAILED))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "tensors: 104,857,600 -> 117,440,512 (+12.0 MiB)"
    assert "aten._softmax" in failure.text
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names == [CELL, "length 64, batch 4"]


def test_junit_of_what_could_not_be_judged_is_an_error():
    suite = ElementTree.fromstring(gate_junit(result(unjudged=("no baseline\x00",))))
    (error,) = suite.iter("error")
    assert error.get("message") == "no baseline"
    assert suite.get("errors") == "1"


def test_json():
    data = json.loads(json.dumps(gate_json(FAILED)))
    assert data["exit_code"] == 1
    assert data["changes"][0]["after"] == 112 * MIB
    assert data["attributions"][0]["changed_parts"][0]["operator"] == "aten::_softmax"
