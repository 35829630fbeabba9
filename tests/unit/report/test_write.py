import csv
import re

import pytest

from bench.errors import ProfileError, RunDirectoryError
from bench.report.write import load_document, write_report
from bench.store import RunDirectory
from tests.factories import cell, environment, preparation, profile, record


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory.create(tmp_path / "run")
    for one in (record(), record(cell(train_size=8))):
        directory.write_record(one)
    directory.write_profile(profile())
    directory.write_environment(environment())
    directory.write_preparation(preparation())
    return directory


def test_csv_has_a_row_a_record_and_nothing_where_a_figure_is_absent(directory, tmp_path):
    write_report(load_document(directory), tmp_path / "out", ["csv"])
    with (tmp_path / "out" / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train_size"] for row in rows] == ["8", "16"]
    assert rows[0]["peak_allocated_bytes"] == ""
    assert float(rows[0]["eval_accuracy"]) == 0.75


def test_markdown(directory, tmp_path):
    file, *figures = write_report(load_document(directory), tmp_path, ["md"])
    text = file.read_text()
    assert text.startswith("# ftbench: test\n")
    linked = re.findall(r"\]\((figures/[\w-]+\.svg)\)", text)
    assert linked == [str(figure.relative_to(tmp_path)) for figure in figures]
    assert all(figure.read_text().startswith("<svg") for figure in figures)


def test_no_record_yet(tmp_path):
    with pytest.raises(RunDirectoryError, match="no record yet"):
        load_document(RunDirectory.create(tmp_path))


def test_a_format_that_there_is_not(directory, tmp_path):
    with pytest.raises(ProfileError, match="no such format"):
        write_report(load_document(directory), tmp_path, ["pdf"])
