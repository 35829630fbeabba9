"""The file of a baseline: what is written, and what is refused when read."""

import json

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gating.baseline import Measured, MeasuredCell, SeedScore
from ftbench.gating.baseline_file import (
    SCHEMA_VERSION,
    baseline_path,
    baseline_text,
    read_baseline,
    write_baseline,
)
from ftbench.gating.predicted import Steps, baseline_of_steps
from tests.factories import breakdown, part
from tests.unit.gating.made import AXES, baseline_made, default_peak, shape


def with_parts(*parts):
    found = baseline_made()
    group = found.groups[0].model_copy(update={"parts": breakdown(*parts).parts})
    return found.model_copy(update={"groups": (group,)})


def measured_made():
    cells = tuple(
        MeasuredCell(
            settings={"learning_rate": rate, "lr_scheduler_kwargs": None},
            cell=shape(train_size=64),
            figures={"total_s": (1.5, 2.5)},
            scores={"42": SeedScore(value=0.5, standard_error=0.1)},
        )
        for rate in (1e-5, 1e-3)
    )
    return Measured(machine={"device": "T4"}, workload={"eval_size": 8}, cells=cells)


def test_what_is_written_is_read_again(tmp_path):
    found = baseline_made("t4", blocks=[AXES | {"attn_implementation": ["sdpa", "eager"]}])
    for made in (found, found.model_copy(update={"measured": measured_made()})):
        write_baseline(made, tmp_path / "a" / "quick.json")
        assert read_baseline(tmp_path / "a" / "quick.json") == made
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["quick.json"]


def test_a_module_s_name_may_hold_anything(tmp_path):
    made = with_parts(part(module='a | "b" | c'), part(module="a"))
    write_baseline(made, tmp_path / "x.json")
    (group,) = read_baseline(tmp_path / "x.json").groups
    assert {one.module for one in group.parts} == {'a | "b" | c', "a"}


def test_steps_are_read_again(tmp_path):
    made = baseline_of_steps("mine", Steps(123, 2, 0), breakdown(part()), [])
    write_baseline(made, tmp_path / "x.json")
    assert read_baseline(tmp_path / "x.json") == made


def test_lines_of_code_are_not_written():
    assert "net.py" not in baseline_text(with_parts(part(source="net.py:7")))


def test_a_cell_a_slope_a_part_and_a_run_are_a_line_each():
    made = baseline_made("t4").model_copy(update={"measured": measured_made()})
    rows = [
        json.loads(line.strip().rstrip(","))
        for line in baseline_text(made).splitlines()
        if line.strip().startswith("{") and len(line.strip()) > 1
    ]
    of = {
        name: [row for row in rows if name in row]
        for name in ("tensors_bytes", "bytes_per_unit", "role", "figures")
    }
    assert [len(found) for found in of.values()] == [4, 4, 1, 2]
    assert of["tensors_bytes"][0]["cell"] == {"max_length": 16, "per_device_train_batch_size": 4}
    assert of["figures"][0]["settings"] == {"learning_rate": 1e-5, "lr_scheduler_kwargs": None}
    assert json.loads(baseline_text(made))["schema_version"] == SCHEMA_VERSION


def test_one_figure_more_is_one_line_of_a_diff():
    def other(cell):
        return default_peak(cell) + (cell.max_length == 16 and cell.examples_per_step == 4)

    before, after = (
        baseline_text(baseline_made(peaks=peaks)).splitlines() for peaks in (default_peak, other)
    )
    differing = [line for line in after if line not in before]
    assert sum("tensors_bytes" in line for line in differing) == 1
    assert len(before) == len(after)


def test_parts_are_written_in_the_order_of_their_names_and_what_is_absent_is_not():
    data = json.loads(baseline_text(with_parts(part("aten::b"), part("aten::a"), part("aten::c"))))
    (written,) = data["groups"]
    assert [one["operator"] for one in written["parts"]] == ["aten::a", "aten::b", "aten::c"]
    assert "cards" not in written["cells"][0]
    assert "measured" not in data


def test_each_level_is_indented_by_one_space():
    lines = baseline_text(baseline_made()).splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("{", f' "schema_version": {SCHEMA_VERSION},', "}")
    place = next(n for n, line in enumerate(lines) if line.startswith(' "groups"'))
    assert lines[place + 1].startswith("  {")
    assert lines[place + 2].startswith('   "')
    assert sum(line.startswith('    {"cell"') for line in lines) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("[]", "not a baseline that this version"),
        ('{"schema_version": 3}', "schema_version 3"),
        ('{"schema_version": true}', "schema_version True"),
        ('{"schema_version": [1]}', "not a baseline that this version"),
        ('{"schema_version": 2}', "not a baseline: profile: "),
        ('{"schema_version": 1}', "not a baseline: profile: "),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, text, said):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match=said) as caught:
        read_baseline(file)
    assert caught.value.where == str(file)


def cell_of(data):
    return data["groups"][0]["cells"][0]


def part_of(data):
    return data["groups"][0]["parts"][0]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda data: data["groups"][0]["cells"][1].pop("tensors_bytes"),
            "groups.0.cells.1.tensors",
        ),
        (lambda data: data["groups"][0]["parts"][0].pop("dtype"), "groups.0.parts.0.dtype"),
        (lambda data: data["groups"][0]["slopes"][2].update(axis="x"), "groups.0.slopes.2.axis"),
        (lambda data: data["groups"][0].update(reference=5), "groups.0.reference"),
        (lambda data: data.update(attention_kernel="foo"), "attention_kernel"),
        (lambda data: data["groups"].append(data["groups"][0]), "the whole file: .* twice"),
        (lambda data: cell_of(data).update(tensors_bytes=-1), "groups.0.cells.0.tensors_bytes"),
        (
            lambda data: cell_of(data).update(tensors_bytes=2**50 + 1),
            "groups.0.cells.0.tensors_byt",
        ),
        (lambda data: cell_of(data).update(tensors_bytes=1.5), "groups.0.cells.0.tensors_bytes"),
        (lambda data: cell_of(data).update(live_blocks=-1), "groups.0.cells.0.live_blocks"),
        (lambda data: cell_of(data)["cards"]["t4"].update(reserved_bytes=1), ".*must rise"),
        (lambda data: part_of(data)["nbytes"].update(peak=-1), "groups.0: .*number of bytes"),
        (lambda data: data["groups"][0]["parts"].append(part_of(data)), "groups.0: .* twice"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, change, place):
    file = tmp_path / "x.json"
    data = json.loads(baseline_text(baseline_made("t4")))
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(BaselineError, match=f"not a baseline: {place}") as caught:
        read_baseline(file)
    assert caught.value.where == str(file)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(BaselineError) as error:
        read_baseline(tmp_path / "x.json")
    assert "ftbench baseline write" in str(error.value)


def test_where_it_is_kept():
    assert baseline_path("quick").as_posix() == "reports/baselines/quick.json"


def test_a_file_that_is_missing_too_large_or_cannot_be_written_is_named(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    with pytest.raises(BaselineError) as missing:
        read_baseline(file)
    write_baseline(baseline_made(), file)
    size = file.stat().st_size
    monkeypatch.setattr("ftbench.gating.baseline_file.MAX_BYTES", size)
    assert read_baseline(file) == baseline_made()
    monkeypatch.setattr("ftbench.gating.baseline_file.MAX_BYTES", size - 1)
    with pytest.raises(BaselineError) as large:
        read_baseline(file)
    with pytest.raises(BaselineError) as unwritable:
        write_baseline(baseline_made(), file / "below")
    assert missing.value.where == large.value.where == str(file)
    assert unwritable.value.where == str(file / "below")


def test_the_committed_baseline_keeps_its_bytes():
    file = baseline_path("memory")
    assert baseline_text(read_baseline(file)) == file.read_text()


def test_counts_are_written_if_they_are_known(tmp_path):
    made = baseline_of_steps("mine", Steps(123, 2, 0, 12), breakdown(part()), [])
    (cell,) = json.loads(baseline_text(made))["groups"][0]["cells"]
    assert (cell["live_blocks"], cell["growth_bytes"]) == (2, 0)
    assert made.workload == {"steps": 12}
    (other, *_) = json.loads(baseline_text(baseline_made()))["groups"][0]["cells"]
    assert set(other) == {"cell", "tensors_bytes"}
