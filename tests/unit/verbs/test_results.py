"""Results of a run directory, against the records that were written."""

import pandas as pd
import pytest

import ftbench
from ftbench.base.errors import ProfileError, RunDirectoryError
from ftbench.records.run_directory import RunDirectory
from tests.factories import cell, environment, preparation, profile, record


@pytest.fixture
def made(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_profile(profile())
    directory.write_preparation(preparation())
    directory.write_environment(environment())
    return directory


@pytest.fixture
def results(made):
    for length, steps in ((64, 3), (128, 2)):
        one = record(cell(max_length=length))
        made.write_record(one)
        table = pd.DataFrame({"step": range(1, steps + 1), "seconds": [0.5] * steps})
        table.to_parquet(made.file("steps", one.file_name, ".parquet"))
    return ftbench.open(made.path)


def test_rows_are_runs(results):
    table = results.to_pandas()
    assert list(table["max_length"]) == [64, 128]
    assert list(table["cell_id"]) == [
        one.cell_id for one in sorted(results.records, key=lambda r: r.cell.max_length)
    ]
    assert len(results) == 2
    assert results.ok


def test_steps_are_those_of_all_runs(results):
    table = results.steps()
    assert list(table.columns[:3]) == ["cell_id", "seed", "repeat"]
    assert table.groupby("cell_id").size().sort_values().tolist() == [2, 3]
    assert table["seconds"].sum() == 2.5


def test_memory_and_scores_are_the_report_s(results):
    assert set(results.memory()["cell_id"]) == set(results.to_pandas()["cell_id"])
    assert len(results.scores()) >= 2


def test_a_run_without_steps_is_left_out(made):
    made.write_record(record(cell(max_length=64)))
    assert ftbench.open(made.path).steps().empty


def test_a_damaged_file_of_steps_is_named(results):
    file = next(results.path.glob("steps/*.parquet"))
    file.write_bytes(b"not parquet")
    with pytest.raises(RunDirectoryError, match=file.name):
        results.steps()


def test_a_failure_is_not_ok(made):
    made.write_record(record(cell(max_length=64), status="crashed", measurement=None))
    assert not ftbench.open(made.path).ok


def test_the_report_is_written_where_it_is_asked_for(results, tmp_path):
    written = results.report(tmp_path / "there", formats=("csv",))
    assert {file.name for file in written} == {"cells.csv", "ledger.csv", "scores.csv"}
    assert pd.read_csv(tmp_path / "there" / "cells.csv")["max_length"].tolist() == [64, 128]
    with pytest.raises(ProfileError, match="html"):
        results.report(tmp_path, formats=("htm",))


def test_a_notebook_shows_a_table(results, made):
    shown = results._repr_html_()
    assert shown.count("<tr") == 3  # the head and two runs
    assert repr(results) == f"Results({str(made.path)!r}, 2 runs)"


def test_an_empty_directory_is_shown_as_such(made):
    assert "no run yet" in ftbench.open(made.path)._repr_html_()


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        ftbench.open(tmp_path)
