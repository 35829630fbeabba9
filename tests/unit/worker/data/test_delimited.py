"""CSV and TSV: what a file says is what is read, and rows are named as a spreadsheet shows them."""

import gzip

import pytest

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import csv_text, examples_of, pools_of, written


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "N/A", "NULL", "-", "True"])
def test_a_class_is_called_what_the_file_calls_it(tmp_path, name):
    pools = pools_of(written(tmp_path / "d.csv", csv_text([name, "EU"] * 10)))
    assert set(pools.labels) == {name, "EU"}
    assert examples_of(pools)["text 2"] == name


@pytest.mark.parametrize("text", ["NA", "007", "1e5", "true", "2020-01-01", " padded "])
def test_a_text_is_what_the_file_says(tmp_path, text):
    content = f"text,label\n{text},0\n" + "\n".join(f"{n},{n % 2}" for n in range(20))
    assert text in examples_of(pools_of(written(tmp_path / "d.csv", content)))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["2", "10"], ("2", "10")),  # whole numbers, in their order
        (["0.5", "1"], ("0.5", "1.0")),
        (["007", "7"], ("007", "7")),  # not whole numbers: two classes
        (["10", "2a"], ("10", "2a")),
        (["-1", "1"], ("-1", "1")),
    ],
)
def test_labels_are_numbers_only_if_all_are_written_so(tmp_path, labels, names):
    pools = pools_of(written(tmp_path / "d.csv", csv_text(labels * 10)))
    assert pools.labels == names


def test_an_empty_field_is_missing_and_named(tmp_path):
    """The header is row 1, a blank line is none, and a text may have several lines."""
    content = 'text,label\n"two\nlines",0\n\nb,1\nc,\nd,0\ne,\n'
    with pytest.raises(WorkloadError, match="2 rows have no label") as caught:
        pools_of(written(tmp_path / "d.csv", content))
    assert caught.value.got == "rows 5 and 7 of d.csv"
    assert caught.value.where == "workload.label_column label"


@pytest.mark.parametrize(
    ("content", "what", "got"),
    [
        ("text,label\na,0\nb,1,2\n", "row 3 has 3 fields, the header has 2", "b,1,2"),
        ("text,label\na,0\nb\n", "row 3 has 1 field,", "b"),
        ('text,label\na,0\n"b,1\nc,0\n', "a quote begins that does not end", "row 3"),
        ('text,label\na,0\n"b" c,1\n', "a quote ends within a field", "row 3"),
        ("", "it is empty", "d.csv"),
        ("\n\n", "it is empty", "d.csv"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, content, what, got):
    with pytest.raises(WorkloadError, match=what) as caught:
        pools_of(written(tmp_path / "d.csv", content))
    assert got in caught.value.got
    assert caught.value.where == "workload.dataset"


@pytest.mark.parametrize("name", ["d.csv", "d.CSV", "d.csv.gz", "D.Csv.GZ"])
def test_names_in_any_case_and_compressed(tmp_path, name):
    content = csv_text([0, 1] * 10).encode()
    file = written(tmp_path / name, gzip.compress(content) if "z" in name.lower() else content)
    assert len(examples_of(pools_of(file))) == 20


def test_a_cut_off_gzip_file_is_refused(tmp_path):
    content = gzip.compress(csv_text([0, 1] * 1000).encode())
    with pytest.raises(WorkloadError, match=r"d.csv.gz cannot be read"):
        pools_of(written(tmp_path / "d.csv.gz", content[:-20]))


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_a_separator_is_found_and_said(tmp_path, separator):
    file = written(tmp_path / "d.csv", csv_text([0, 1] * 10, "so, {}", separator))
    pools = pools_of(file)
    assert examples_of(pools)["so, 3"] == "1"
    assert any("separated by" in note for note in pools.notes)


def test_a_separator_is_settable(tmp_path):
    file = written(tmp_path / "d.csv", csv_text([0, 1] * 10, "{}", ":"))
    with pytest.raises(WorkloadError, match="no such column"):
        pools_of(file)
    assert examples_of(pools_of(file, separator=":"))["3"] == "1"


def test_a_tsv_may_have_quotes_of_its_texts(tmp_path):
    """GLUE's files are written without quoting; others quote as CSV does."""
    plain = csv_text([0, 1] * 10, '"so {}', "\t")
    pools = pools_of(written(tmp_path / "plain.tsv", plain))
    assert examples_of(pools)['"so 3'] == "1"
    assert pools.notes
    quoted = csv_text([0, 1] * 10, '"so ""{}"""', "\t")
    pools = pools_of(written(tmp_path / "quoted.tsv", quoted))
    assert examples_of(pools)['so "3"'] == "1"
    assert not pools.notes


def test_a_very_wide_file(tmp_path):
    """100,000 columns, of which two are kept."""
    rows = [",".join(map(str, range(99_998)))] * 20
    header = ",".join(f"c{n}" for n in range(99_998))
    lines = [f"{row},text {n},{n % 2}" for n, row in enumerate(rows)]
    file = written(tmp_path / "d.csv", "\n".join([f"{header},text,label", *lines]))
    assert len(examples_of(pools_of(file))) == 20
    with pytest.raises(WorkloadError, match="no such column") as caught:
        pools_of(file, text_column="c1234567")
    assert len(str(caught.value)) < 1000


def test_a_very_long_text(tmp_path):
    file = written(tmp_path / "d.csv", csv_text([0, 1] * 10, "{}" + "x" * 200_000))
    assert len(examples_of(pools_of(file))) == 20


def test_a_column_that_is_there_twice(tmp_path):
    content = "text,label,label\n" + "a,0,1\n" * 20
    with pytest.raises(WorkloadError, match="2 columns have this name"):
        pools_of(written(tmp_path / "d.csv", content))
