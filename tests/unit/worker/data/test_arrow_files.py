"""Parquet and saved data sets: typed columns, the names of classes, and rows that are named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import examples_of, pools_of, written


def parquet(tmp_path, **columns):
    values = {"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
    pq.write_table(pa.table(values | columns), tmp_path / "d.parquet")
    return tmp_path / "d.parquet"


def test_bytes_are_texts_if_they_are_utf_8(tmp_path):
    texts = [f"téxt {n}".encode() for n in range(20)]
    assert examples_of(pools_of(parquet(tmp_path, text=texts)))["téxt 3"] == "1"
    texts[6] = b"bad \xff byte"
    with pytest.raises(WorkloadError, match="bytes that are not UTF-8") as caught:
        pools_of(parquet(tmp_path, text=texts))
    assert "row 7, byte 4" in caught.value.got


def test_texts_that_are_not_utf_8_are_named(tmp_path):
    """A column of texts, too, may hold any bytes: Parquet's readers do not look."""
    texts = [f"text {n}".encode() for n in range(20)]
    texts[6] = b"bad \xff byte"
    bad = pa.array(texts).view(pa.string())
    with pytest.raises(WorkloadError, match="bytes that are not UTF-8") as caught:
        pools_of(parquet(tmp_path, text=bad))
    assert "row 7, byte 4" in caught.value.got


def test_a_saved_column_whose_offsets_are_broken_is_refused(tmp_path):
    Dataset.from_dict(
        {"text": [f"text {n}" for n in range(20)], "label": [0, 1] * 10}
    ).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    content = file.read_bytes()
    end = (130).to_bytes(4, "little")  # of the last text: ten have 6 bytes, ten have 7
    assert end in content
    file.write_bytes(content.replace(end, b"\0\0\0\x2a"))
    with pytest.raises(WorkloadError, match=r"arrow cannot be read"):
        pools_of(tmp_path / "saved")


def test_categories_are_their_texts(tmp_path):
    labels = pa.array(["no", "yes"] * 10).dictionary_encode()
    assert pools_of(parquet(tmp_path, label=labels)).labels == ("no", "yes")


@pytest.mark.parametrize("balanced", [False, True])
def test_a_label_that_is_not_a_number_is_missing(tmp_path, balanced):
    """A null, and the NaN that pandas writes for one."""
    labels = pa.array([0.0, 1.0, float("nan"), None, *[0.0, 1.0] * 8])
    with pytest.raises(WorkloadError, match="2 rows have no label") as caught:
        pools_of(parquet(tmp_path, label=labels), balanced=balanced)
    assert caught.value.got == "rows 3 and 4 of d.parquet"


def test_an_infinite_label_is_refused(tmp_path):
    with pytest.raises(WorkloadError, match="not a finite number") as caught:
        pools_of(parquet(tmp_path, label=[0.0, float("inf"), *[0.0, 1.0] * 9]))
    assert caught.value.got == "row 2 of d.parquet"


def test_class_names_are_in_a_file_s_own_description(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rows = {"text": [f"text {n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d.parquet")
    assert pools_of(tmp_path / "d.parquet").labels == ("no", "yes")


def test_a_broken_file_has_its_reader_s_cause(tmp_path):
    whole = parquet(tmp_path).read_bytes()
    for content in (whole[: len(whole) // 2], b"PAR1", b"", b"no parquet at all" * 10):
        with pytest.raises(WorkloadError, match=r"d.parquet cannot be read: \w+"):
            pools_of(written(tmp_path / "d.parquet", content))
