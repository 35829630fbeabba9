import json

import pandas as pd
import pytest

from ftbench.records.run_directory import RunDirectory
from ftbench.report.run_files import read_largest, read_samples
from tests.factories import record

LARGEST = {
    "cell_id": "0" * 12,
    "gpu": "t4",
    "max_length": 64,
    "certain": 30,
    "possible": 34,
    "reserved": None,
}
SAMPLES = pd.DataFrame(
    {
        "t_s": [0.0],
        "phase": ["load"],
        "pss_bytes": [1],
        "process_bytes": [None],
        "device_bytes": [None],
    }
)


def test_predictions_as_ftbench_predict_prints_them(tmp_path):
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps({"cells": [], "largest_batch": [LARGEST]}))
    (one,) = read_largest(file)
    assert (one.gpu, one.certain, one.possible) == ("t4", 30, 34)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"largest_batch": 3}', '{"largest_batch": [{"gpu": "t4"}]}', "\xff"],
)
def test_what_is_no_prediction_is_none(tmp_path, text):
    file = tmp_path / "predictions.json"
    file.write_bytes(text.encode("latin-1"))
    assert read_largest(file) == ()


def test_no_file_and_no_link(tmp_path):
    assert read_largest(tmp_path / "none.json") == ()
    (tmp_path / "real").write_text(json.dumps({"largest_batch": [LARGEST]}))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert read_largest(tmp_path / "link") == ()


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run")


def test_samples(directory):
    assert read_samples(directory, record()) is None
    file = directory.file("samples", record().file_name, ".parquet")
    SAMPLES.to_parquet(file)
    assert list(read_samples(directory, record())["t_s"]) == [0.0]


def test_samples_that_cannot_be_read_or_say_something_else(directory):
    file = directory.file("samples", record().file_name, ".parquet")
    file.write_bytes(b"PAR1 no PAR1")
    assert read_samples(directory, record()) is None
    SAMPLES.drop(columns="t_s").to_parquet(file)
    assert read_samples(directory, record()) is None
    SAMPLES.iloc[:0].to_parquet(file)
    assert read_samples(directory, record()) is None
