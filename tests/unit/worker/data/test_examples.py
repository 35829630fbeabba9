"""Rows without a text or a label: refused and named, or dropped on request."""

import pandas as pd
import pytest

from ftbench.base.errors import WorkloadError
from tests.unit.worker.data.sources import csv_text, examples_of, pools_of, written


@pytest.mark.parametrize("empty", ["", "   ", "\t", "\u00a0"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_text_of_nothing_is_named(tmp_path, suffix, empty):
    rows = pd.DataFrame({"text": [f"t{n}" for n in range(20)], "label": [0, 1] * 10})
    rows.loc[[3, 7], "text"] = empty
    file = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        rows.to_json(file, orient="records", lines=True)
    else:
        getattr(rows, f"to_{suffix}")(file, index=False)
    with pytest.raises(WorkloadError, match="2 rows have no text") as caught:
        pools_of(file)
    shown = (5, 9) if suffix == "csv" else (4, 8)
    assert caught.value.got == "rows {} and {} of d.{}".format(*shown, suffix)
    assert "drop_rows_without_text" in caught.value.hint
    assert len(examples_of(pools_of(file, drop_rows_without_text=True))) == 18


def test_of_many_rows_the_first_are_named(tmp_path):
    file = written(tmp_path / "d.csv", csv_text([0, ""] * 100))
    with pytest.raises(WorkloadError, match="100 rows have no label") as caught:
        pools_of(file)
    assert caught.value.got == "rows 3, 5, 7, 9 and 11 of d.csv, and 95 more"


def test_either_text_of_a_pair_may_be_missing(tmp_path):
    rows = "".join(f"a{n},{'' if n in (2, 5) else n},{n % 2}\n" for n in range(20))
    file = written(tmp_path / "d.csv", "first,second,label\n" + rows)
    pair = {"text_column": ("first", "second")}
    with pytest.raises(WorkloadError, match="2 rows have no text") as caught:
        pools_of(file, **pair)
    assert caught.value.where == "workload.text_column second"
    pools = pools_of(file, drop_rows_without_text=True, **pair)
    assert len(pools.train) + len(pools.evaluation) == 18


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_hidden_labels_are_dropped_in_a_classification(tmp_path, suffix):
    """SNLI has -1 where its annotators did not agree; to a regression it is a number as any other."""
    rows = pd.DataFrame({"text": [f"t{n}" for n in range(60)], "label": [0, 1, 2, -1, 1, 0] * 10})
    file = tmp_path / f"d.{suffix}"
    if suffix == "csv":
        rows.to_csv(file, index=False)
    else:
        rows.to_json(file, orient="records", lines=True)
    pools = pools_of(file, drop_rows_without_label=True)
    assert pools.labels == ("0", "1", "2")
    assert pools.left_out == {"without a label": 10}
    assert pools_of(file).labels == ("-1", "0", "1", "2")
    numbers = pools_of(file, drop_rows_without_label=True, task="text-regression")
    assert len(numbers.train) + len(numbers.evaluation) == 60


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ([f"id {n}" for n in range(60)], None),
        (range(60), "text-regression"),
        ([n / 7 for n in range(60)], "text-regression"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, hint):
    with pytest.raises(
        WorkloadError, match=r"different labels in .* these are not classes"
    ) as caught:
        pools_of(written(tmp_path / "d.csv", csv_text(list(labels))))
    assert caught.value.where == "workload.label_column label"
    assert (hint or "") in (caught.value.hint or "")


def test_a_regression_names_a_label_that_is_no_number(tmp_path):
    labels = [0.5, 1, 2.25, "n/a", *range(20)]
    with pytest.raises(WorkloadError, match="needs labels that are numbers") as caught:
        pools_of(written(tmp_path / "d.csv", csv_text(labels)), task="text-regression")
    assert caught.value.got == "'n/a'"
