from ftbench.analysis.tables.scores_table import COLUMNS, scores_table
from ftbench.records.record import Failure
from tests.factories import measurement, record, score

SCORES = (score("pearson", 0.6, low=0.4, high=0.7, guess=0.0), score("mse", 0.2, guess=0.5))


def test_every_score_is_a_row():
    of = record(replicate=1, measurement=measurement(scores=SCORES))
    found = scores_table([of]).to_dict("records")
    assert [(row["score"], row["value"], row["guess"]) for row in found] == [
        ("pearson", 0.6, 0.0),
        ("mse", 0.2, 0.5),
    ]
    assert found[0] | {"low": 0.4, "high": 0.7, "seed": of.seed, "replicate": 1} == found[0]
    assert [row["higher_is_better"] for row in found] == [True, False]


def test_an_untrusted_score_has_its_reason():
    (row,) = scores_table([record(measurement=measurement(eval_accuracy=1.5))]).to_dict("records")
    assert "1.5" in row["untrusted"]


def test_runs_without_scores_have_no_row():
    failed = record(status="oom", measurement=None, failure=Failure(message="m"))
    found = scores_table([failed, record(measurement=measurement(eval_accuracy=None))])
    assert found.empty
    assert list(found) == list(COLUMNS)
