"""The peaks in pytest-benchmark's JSON, and what is no such file."""

import json

import pytest

from ftbench.base.errors import BaselineError
from ftbench.gating.peaks import Peaks
from ftbench.gating.pytest_benchmark import PEAK, VERSIONS, read_peaks


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
    with pytest.raises(BaselineError, match="not a number of bytes"):
        read_peaks(written(tmp_path, {"fullname": "a", "extra_info": {PEAK: peak}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmarks": [1]}', '{"benchmarks": [{}]}'])
def test_another_file_is_refused(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BaselineError, match="not a file that"):
        read_peaks(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BaselineError, match="cannot be read"):
        read_peaks(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["[]", '{"benchmarks": []}', None, "a peak"])
def test_a_file_that_is_refused_is_named(tmp_path, text):
    file = tmp_path / "x.json"
    if text == "a peak":
        file = written(tmp_path, {"fullname": "mine", "extra_info": {PEAK: -1}})
    elif text is not None:
        file.write_text(text)
    with pytest.raises(BaselineError) as caught:
        read_peaks(file)
    assert caught.value.where == str(file)
    if text == "a peak":
        assert caught.value.got == "mine"
    if text == "[]":
        assert caught.value.got


def test_a_file_may_be_as_large_as_it_may(tmp_path, monkeypatch):
    file = written(tmp_path, {"fullname": "a", "extra_info": {PEAK: 0}})
    monkeypatch.setattr("ftbench.gating.pytest_benchmark.MAX_BYTES", file.stat().st_size)
    assert read_peaks(file).nbytes == {"a": 0}
    monkeypatch.setattr("ftbench.gating.pytest_benchmark.MAX_BYTES", file.stat().st_size - 1)
    with pytest.raises(BaselineError, match="larger than") as caught:
        read_peaks(file)
    assert caught.value.where == str(file)


def test_two_benchmarks_of_one_name_are_refused(tmp_path):
    twice = [{"fullname": "a", "extra_info": {PEAK: peak}} for peak in (5, 7)]
    with pytest.raises(BaselineError, match="two benchmarks of one name") as caught:
        read_peaks(written(tmp_path, *twice))
    assert caught.value.got == "a"


def test_benchmarks_of_two_versions_in_one_file_are_refused(tmp_path):
    both = [
        {"fullname": name, "extra_info": {PEAK: 5, VERSIONS: {"torch": version}}}
        for name, version in (("a", "2.13.0"), ("b", "2.14.0"))
    ]
    with pytest.raises(BaselineError, match="several versions"):
        read_peaks(written(tmp_path, *both))


def test_no_card_has_as_many_bytes(tmp_path):
    with pytest.raises(BaselineError, match="not a number of bytes"):
        read_peaks(written(tmp_path, {"fullname": "a", "extra_info": {PEAK: 2**50 + 1}}))
