"""A user's own files, from a semicolon CSV to a record and a report."""

import pytest

from tests.integration.conftest import SMALL, run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Latin-1, semicolons, classes called NA and EU, rows without label or text, and ten texts again and again."""
    folder = tmp_path_factory.mktemp("own")
    rows = [f"le café numéro {n % 10}, déjà vu;{('NA', 'EU')[n % 2]}" for n in range(100)]
    text = "\n".join(["review;region", *rows, "sans région;", ";EU", ""])
    (folder / "reviews.CSV").write_bytes(text.encode("latin-1"))
    settings = {name.replace(".", "__"): value for name, value in SMALL.items()} | {
        "workload__dataset": str(folder / "reviews.CSV"),
        "workload__text_column": "review",
        "workload__label_column": "region",
        "workload__eval_size": "6",
        "workload__drop_rows_without_label": "true",
        "workload__drop_rows_without_text": "true",
    }
    return run("smoke", folder / "run", "--only", "max_length=16,train_size=16", **settings)


def test_the_facts_about_the_data_are_in_the_preparation(done):
    assert done.process.returncode == 0, done.process.stderr
    preparation = done.directory.read_preparation()
    assert preparation.labels == ("EU", "NA")
    assert preparation.data.left_out == {"without a label": 1, "without a text": 1}
    assert sum(found.evaluated for found in preparation.data.classes) == 6
    assert len(preparation.data.notes) == 2  # the encoding and the separator


def test_warnings_are_in_the_record_and_the_report(done):
    (record,) = done.records
    values = {w.name: w.value for w in record.measurement.warnings}
    assert values["trained_on"] > 0
    assert values["left_out"] == 1
    report = (done.directory.path / "report.md").read_text()
    assert "without a label: 1." in report
    assert "cp1252" in report
