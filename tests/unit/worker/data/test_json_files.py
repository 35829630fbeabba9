"""JSON: three forms, exact types, and the line and column of what cannot be read."""

import json

import pandas as pd
import pytest

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import examples_of, pools_of, written

ROWS = [{"text": f"text {n}", "label": n % 2} for n in range(20)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_forms_of_a_file(tmp_path):
    forms = {
        "lines.jsonl": lines(ROWS),
        "lines.json": lines(ROWS),
        "list.json": json.dumps(ROWS),
        "indented.json": json.dumps(ROWS, indent=1),
        "columns.json": json.dumps({k: [row[k] for row in ROWS] for k in ("text", "label")}),
        "pandas.json": pd.DataFrame(ROWS).to_json(),
        "blank.jsonl": "\n" + lines(ROWS).replace("\n", "\n\n"),
    }
    for name, content in forms.items():
        assert examples_of(pools_of(written(tmp_path / name, content)))["text 3"] == "1", name


@pytest.mark.parametrize(
    ("rows", "what", "got"),
    [
        (
            [{"text": "a", "label": "1"}],
            "label holds whole numbers and texts",
            "row 1: 0; row 21: '1'",
        ),
        ([{"text": 5, "label": 1}], "text holds texts and whole numbers", "row 21: 5"),
        ([{"text": "a", "label": True}], "whole numbers and true or false", "row 21: True"),
        ([{"text": "a", "label": [1]}], "whole numbers and lists", r"row 21: [1]"),
        ([{"text": "a\ud800", "label": 1}], "half of a surrogate pair", "row 21"),
        ([{"text": "a", "label": 10**400}], "beyond 64 bits", "row 21"),
    ],
)
def test_values_that_do_not_belong_are_named(tmp_path, rows, what, got):
    with pytest.raises(WorkloadError, match=what) as caught:
        pools_of(written(tmp_path / "d.jsonl", lines(ROWS + rows)))
    assert got in caught.value.got


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lines(ROWS) + '{"text": "a", "label', "in line 21, column"),
        (lines(ROWS) + '{"text": "a", "label": 1' + "0" * 5000 + "}", "line 21"),
        ("[" + json.dumps(ROWS[0]) + ",\n{]", "in line 2, column 2"),
        (lines(ROWS) + "[1, 2]\n", "row 21 of d.json is not an object"),
        ('{"version": 1,\n"data": []}', "not one with a list of the same length"),
        ("[" * 100_000, "nested too deep"),
        ("", "it is empty"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, content, what):
    with pytest.raises(WorkloadError, match=what):
        pools_of(written(tmp_path / "d.json", content))


def test_rows_without_a_label_are_the_lines_of_the_file(tmp_path):
    rows = [*ROWS[:4], {"text": "no label"}, {"text": "nan", "label": float("nan")}, *ROWS[4:]]
    rows = [{**row, "label": float(row["label"])} if "label" in row else row for row in rows]
    file = written(tmp_path / "d.jsonl", "\n" + lines(rows))
    for balanced in (False, True):
        with pytest.raises(WorkloadError, match="2 rows have no label") as caught:
            pools_of(file, balanced=balanced)
        assert caught.value.got == "rows 6 and 7 of d.jsonl"
    pools = pools_of(file, drop_rows_without_label=True)
    assert len(examples_of(pools)) == 20
    assert pools.left_out == {"without a label": 2}
