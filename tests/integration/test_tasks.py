"""Tasks beside the first, for real: numbers to learn, and pairs of texts; from the command line."""

import numpy as np
import pytest
from datasets import Dataset

from tests.integration.conftest import run

pytestmark = pytest.mark.integration


@pytest.fixture
def similar(tmp_path):
    """Write pairs of texts with a number that says how many words they share; return the file."""
    draw = np.random.default_rng(0)
    colours = ["red", "green", "blue", "white"]
    words = np.array([*colours, "small", "large", "old", "new", "fast", "slow", "warm", "cold"])
    rows = []
    for _ in range(80):
        first, second = (set(draw.choice(words, 4, replace=False)) for _ in range(2))
        rows.append((" ".join(sorted(first)), " ".join(sorted(second)), len(first & second) / 4))
    columns = dict(
        zip(("first", "second", "score"), map(list, zip(*rows, strict=True)), strict=True)
    )
    Dataset.from_dict(columns).to_csv(tmp_path / "pairs.csv")
    return tmp_path / "pairs.csv"


def small(out, data, **settings):
    """Run one cell of the smoke profile on this file."""
    chosen = {
        "workload__dataset": str(data),
        "workload__text_column": '["first", "second"]',
        "workload__label_column": "score",
        "workload__task": "text-regression",
        "workload__where": "{}",
        "workload__drop_duplicates": "false",
        "workload__balanced": "false",
        "workload__eval_split": "from-train",
        "workload__eval_size": "16",
        "grid__max_length": "[32]",
        "grid__train_size": "[16]",
    }
    return run("smoke", out, **(chosen | settings))


def test_a_regression_over_pairs_from_start_to_end(similar, tmp_path):
    done = small(tmp_path / "run", similar)
    assert done.process.returncode == 0, done.process.stderr
    (record,) = done.records
    measured = record.measurement
    assert measured.score("mse").value == pytest.approx(measured.eval_loss, rel=1e-3)
    assert not measured.score("mse").higher_is_better
    for score in measured.scores:
        assert score.low <= score.value <= score.high
    assert measured.score("mse").guess > 0
    assert set(measured.epochs[-1].scores) == {"pearson", "spearman", "mse"}
    assert record.cell.settings["metric_for_best_model"] == "loss"
    assert done.directory.read_preparation().labels == ()
    report = (done.directory.path / "report.md").read_text()
    assert "Pearson r" in report
    assert "accuracy" not in report.lower()


@pytest.mark.long
def test_the_score_to_choose_by_may_be_one_that_should_be_low(similar, tmp_path):
    done = small(tmp_path / "run", similar, training__metric_for_best_model="mse")
    (record,) = done.records
    best = min(epoch.scores["mse"] for epoch in record.measurement.epochs)
    assert record.measurement.score("mse").value == pytest.approx(best)


@pytest.mark.long
def test_pairs_of_texts_are_classified(similar, tmp_path):
    settings = {"workload__task": "text-classification", "workload__eval_size": "8"}
    done = small(tmp_path / "run", similar, **settings)
    assert done.process.returncode == 0, done.process.stderr
    (record,) = done.records
    assert [score.name for score in record.measurement.scores] == ["accuracy", "f1_macro"]
    assert 0 < record.measurement.score("accuracy").guess < 1


def test_classes_are_no_numbers_and_say_so_before_anything_runs(similar, tmp_path):
    done = small(
        tmp_path / "run", similar, workload__label_column="first", workload__text_column="second"
    )
    assert done.process.returncode == 2
    assert "a regression needs labels that are numbers" in done.process.stderr
