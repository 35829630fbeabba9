"""The peaks in pytest-benchmark's JSON, and what is no such file."""

import json

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gate.pytest_benchmark import PEAK, VERSIONS, Peaks, read_peaks


def written(tmp_path, *benchmarks):
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"benchmarks": list(benchmarks), "version": "5.3.1"}))
    return file


def test_peaks_are_read_by_full_name(tmp_path):
    file = written(
        tmp_path,
        {
            "fullname": "tests/test_a.py::test_a",
            "extra_info": {PEAK: 512, VERSIONS: {"torch": "2.13.0"}},
        },
        {"fullname": "tests/test_a.py::test_time", "extra_info": {}},
    )
    assert read_peaks(file) == Peaks({"tests/test_a.py::test_a": 512}, {"torch": "2.13.0"})


def test_a_file_without_peaks_says_how_to_get_them(tmp_path):
    with pytest.raises(BaselineError, match="no benchmark has a peak"):
        read_peaks(written(tmp_path, {"fullname": "a", "extra_info": {}}))


@pytest.mark.parametrize("peak", ["512", 5.5, -1, None, True])
def test_a_peak_that_is_no_number_of_bytes_is_refused(tmp_path, peak):
    with pytest.raises(BaselineError, match="no number of bytes"):
        read_peaks(written(tmp_path, {"fullname": "a", "extra_info": {PEAK: peak}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [1]}', '{"benchmarks": [{}]}'])
def test_another_file_is_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match="not what"):
        read_peaks(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BaselineError, match="cannot be read"):
        read_peaks(tmp_path / "none.json")
