import csv
import json

import pyarrow.parquet as pq
import pytest

from ftbench.base.errors import ProfileError, RunDirectoryError
from ftbench.records.record import Failure
from ftbench.records.run_directory import RunDirectory
from ftbench.report.commands.side_by_side import build, data, load_side_by_side, writers
from ftbench.report.write import write_report
from tests.factories import cell, environment, measurement, preparation, profile, record

HOSTILE = 'a | <script>alert(1)</script> [x](javascript:y) \\input{x} "q"'


def directory(path, records, **env):
    env = environment(**env)
    made = RunDirectory.create(path)
    for one in records:
        made.write_record(one.model_copy(update={"environment_id": env.environment_id}))
    made.write_profile(profile())
    made.write_environment(env)
    made.write_preparation(preparation())
    return made


def records(factor=1.0, lengths=(16, 32), replicates=2):
    return [
        record(
            cell(max_length=n),
            replicate=r,
            measurement=measurement(
                total_s=n * factor * (1 + 0.01 * r), step_median_s=0.1 * factor
            ),
        )
        for n in lengths
        for r in range(replicates)
    ]


@pytest.fixture
def found(tmp_path):
    a = directory(tmp_path / "before", records())
    b = directory(tmp_path / "after", records(2.0, (32, 64)), cpu=HOSTILE)
    return load_side_by_side(a, b)


def text_of(document):
    return "\n".join(p for section in document.sections for p in section.paragraphs)


def table(document, title):
    (one,) = (t for section in document.sections for t in section.tables if t.title == title)
    assert {len(row) for row in one.rows} == {len(one.columns)} == {len(one.numeric)}
    return one


def test_what_differs_comes_first(found):
    document = build(found)
    assert [section.heading for section in document.sections][:3] == [
        "What differs",
        "What was found",
        "Cells",
    ]
    assert table(document, "Environments that differ").rows == (("cpu", "a processor", HOSTILE),)
    text = text_of(document)
    assert "A is before (profile test, 4 runs)." in text
    assert "Both have the same settings." in text


def test_values_ratio_and_verdict_of_a_cell(found):
    one = table(build(found), "Total time")
    assert one.columns[-4:] == ("total time A", "total time B", "B / A", "verdict")
    (row,) = one.rows
    assert row[-4:-2] == ("32.2 s", "1 min 04 s")
    assert row[-2].startswith("2.00x (")
    assert row[-1] == "B has more"
    assert "Total time, B to A in the one cell of both: 2.00x" in text_of(build(found))
    assert "B takes more" in text_of(build(found))


def test_no_word_claims_what_a_few_cells_do_not_carry(tmp_path):
    a = directory(tmp_path / "a", records(replicates=1))
    b = directory(tmp_path / "b", records(1.3, replicates=1))
    text = text_of(build(load_side_by_side(a, b)))
    assert (
        "Total time, B to A in the median of 2 cells: 1.30x, without an interval (fewer than six cells):"
        " whether that is noise cannot be told." in text
    )
    assert "B takes" not in text.replace("Step time", "")


def test_identical_directories(tmp_path):
    a, b = (directory(tmp_path / name, records()) for name in ("a", "b"))
    document = build(load_side_by_side(a, b))
    text = text_of(document)
    assert "the same environment" in text
    assert "the same settings" in text
    assert {row[-1] for row in table(document, "Total time").rows} == {"not distinguishable"}
    assert not any(section.heading == "Not compared" for section in document.sections)


def test_a_directory_beside_itself_has_two_names(tmp_path):
    one = directory(tmp_path / "a", records())
    found = load_side_by_side(one, one)
    assert found.a.name == found.b.name == str(tmp_path / "a")


def test_cells_of_one_side_are_listed(found):
    document = build(found)
    assert [row[1:] for row in table(document, "Not compared").rows] == [
        ("ok", "not run"),
        ("not run", "ok"),
    ]
    assert "1 cell finished in A only." in text_of(document)
    assert "1 cell finished in B only." in text_of(document)


def test_nothing_in_common(tmp_path):
    failed = record(status="oom", measurement=None, failure=Failure(message="m"))
    a, b = (directory(tmp_path / name, [failed]) for name in ("a", "b"))
    assert "nothing can be compared" in text_of(build(load_side_by_side(a, b)))


def test_an_empty_directory_is_refused(tmp_path, found):
    with pytest.raises(RunDirectoryError, match="no record yet"):
        load_side_by_side(
            directory(tmp_path / "x", records()), RunDirectory.create(tmp_path / "empty")
        )


# The files


def test_every_format(found, tmp_path):
    formats = ("md", "html", "csv", "json", "parquet", "latex")
    files = write_report(build(found), tmp_path / "out", formats, writers(found))
    assert sorted(file.name for file in files) == [
        "side_by_side-tables.tex",
        "side_by_side.csv",
        "side_by_side.html",
        "side_by_side.json",
        "side_by_side.md",
        "side_by_side.parquet",
        "side_by_side.tex",
    ]
    by_suffix = {file.suffix: file.read_bytes() for file in files}
    for suffix in (".md", ".html"):
        assert b"<script>alert" not in by_suffix[suffix]
    assert b"](javascript" not in by_suffix[".md"]
    assert b"\\input{x}" not in by_suffix[".tex"]


def test_csv_has_a_row_a_cell_of_either(found, tmp_path):
    (file,) = write_report(build(found), tmp_path, ["csv"], writers(found))
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["max_length"] for row in rows] == ["16", "32", "64"]
    assert [row["total_s_verdict"] for row in rows] == ["", "more", ""]
    assert float(rows[1]["total_s_ratio"]) == pytest.approx(2.0)
    assert rows[1]["peak_rss_bytes_a"] == str(2**30)


def test_json_is_strict_and_says_what_differs(found, tmp_path):
    (file,) = write_report(build(found), tmp_path, ["json"], writers(found))
    made = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (made["schema_version"], made["kind"]) == (1, "side by side")
    assert made["differences"]["environment"] == [
        {"what": "cpu", "a": ["a processor"], "b": [HOSTILE]}
    ]
    assert made["cells"][0]["total_s_b"] is None
    assert made["cells"][0]["status_b"] == "not run"
    assert made["median_ratios"]["total_s"]["verdict"] == "more"
    assert made["a"]["runs"] == 4
    assert made["units"]["total_s_a"] == "s"
    assert "total_s_ratio" not in made["units"]
    assert made == json.loads(json.dumps(data(found)))


def test_parquet(found, tmp_path):
    (file,) = write_report(build(found), tmp_path, ["parquet"], writers(found))
    made = pq.read_table(file)
    assert made["runs_a"].to_pylist() == [2, 2, 0]
    assert made.schema.field("total_s_b").metadata[b"unit"] == b"s"


def test_a_format_that_two_directories_do_not_have(found, tmp_path):
    with pytest.raises(ProfileError, match="no such format"):
        write_report(build(found), tmp_path / "out", ["md", "png"], writers(found))
    assert not (tmp_path / "out").exists()
