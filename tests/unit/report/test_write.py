import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import typer

from ftbench.base.errors import ProfileError, RunDirectoryError
from ftbench.cli import app
from ftbench.records.run_directory import RunDirectory
from ftbench.report.commands import side_by_side
from ftbench.report.write import FORMATS, fits, load_document, write_report
from tests import synthetic
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


OLD = Path(__file__).parents[1] / "records/schema-3"


def test_run_directories_of_earlier_versions_have_reports_and_comparisons(tmp_path):
    """Facts that their records lack are left out, never made up."""
    directory = RunDirectory.open(OLD)
    document = load_document(directory)
    write_report(document, tmp_path, ["md", "html", "csv", "json", "latex"])
    text = (tmp_path / "report.md").read_text()
    assert "pools of 19,892 training examples and 4,972 evaluation examples" in text
    assert not re.search("most frequent class among|Checkpoint of|Attention:", text)
    assert "not distinguishable from guessing" not in text
    compared = side_by_side.build(side_by_side.load_side_by_side(directory, directory))
    assert "What was found" in {section.heading for section in compared.sections}


def test_markdown(directory, tmp_path):
    file, *figures = write_report(load_document(directory), tmp_path, ["md"])
    text = file.read_text()
    assert text.startswith("# ftbench: test\n")
    linked = re.findall(r"\]\((figures/[\w-]+\.svg)\)", text)
    assert linked == [str(figure.relative_to(tmp_path)) for figure in figures]
    assert all(figure.read_text().startswith("<svg") for figure in figures)


def test_learning_curves_are_of_one_environment_each():
    here = synthetic.records((64,), (4,), (100, 300, 1000, 3000), replicates=3)
    there = [one.model_copy(update={"environment_id": "there"}) for one in here]
    _, curves = fits([*here, *there])
    assert {one.fixed["environment_id"] for one in curves} == {here[0].environment_id, "there"}


def test_png(directory, tmp_path):
    written = write_report(load_document(directory), tmp_path, ["png"])
    assert {file.suffix for file in written} == {".png"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written)


def test_what_lies_beside_the_records_is_drawn(directory):
    bare = {figure.name for figure in load_document(directory).figures}
    predicted = {"cell_id": "0" * 12, "gpu": "t4", "max_length": 16, "certain": 9, "possible": 9}
    (directory.path / "predictions.json").write_text(
        json.dumps({"largest_batch": [predicted | {"reserved": None}]})
    )
    samples = {"t_s": [0.0, 1.0], "phase": "load", "pss_bytes": [1, 2]}
    table = pd.DataFrame(samples).assign(process_bytes=None, device_bytes=None)
    for one in directory.records():
        table.to_parquet(directory.file("samples", one.file_name, ".parquet"))
    found = {figure.name for figure in load_document(directory).figures}
    assert found - bare == {"largest-batch", "memory-timeline"}


def test_the_same_run_directory_is_the_same_bytes(directory, tmp_path):
    first, second = (
        write_report(load_document(directory), tmp_path / name, ["md", "csv", "png"])
        for name in ("first", "second")
    )
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_no_record_yet(tmp_path):
    with pytest.raises(RunDirectoryError, match="no record yet"):
        load_document(RunDirectory.create(tmp_path))


def test_a_format_that_there_is_not(directory, tmp_path):
    with pytest.raises(ProfileError, match="no such format"):
        write_report(load_document(directory), tmp_path, ["pdf"])


def test_the_help_of_the_option_names_every_format():
    command = typer.main.get_command(app).commands["report"]
    (option,) = (one for one in command.params if one.name == "formats")
    named = option.help.partition("of ")[2].partition(".")[0].split(", ")
    assert sorted(named) == sorted(FORMATS)
