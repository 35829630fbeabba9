import pytest

from ftbench.records.record import Failure
from ftbench.report.document import build
from tests.factories import (
    cell,
    environment,
    measurement,
    preparation,
    profile,
    record,
    run_warning,
)


def text_of(records, profile_=None, **prepared):
    env = environment()
    of = profile_ or profile()
    document = build(records, of, preparation(**prepared), {env.environment_id: env})
    texts = [p for section in document.sections for p in section.paragraphs]
    rows = [row for section in document.sections for table in section.tables for row in table.rows]
    return "\n".join([*texts, *(" ".join(row) for row in rows)])


LEARNING = [
    record(cell(train_size=n), measurement=measurement(eval_accuracy=a, total_s=s))
    for n, a, s in ((16, 0.55, 10.0), (160, 0.8, 100.0))
]


def test_headlines_are_the_ends_of_a_series():
    text = text_of(LEARNING)
    assert "2 of 2 runs finished." in text
    assert "Training examples 16 to 160" in text
    assert "from 0.550 at 16 training examples to 0.800 at 160" in text
    assert "the whole run from 10.0 s to 1 min 40 s (10.00x)" in text


def test_settings_that_were_varied_are_compared():
    records = [
        record(cell(malloc=malloc), measurement=measurement(total_s=total_s))
        for malloc, total_s in (("default", 40.0), ("keep", 20.0))
    ]
    assert "malloc keep over default: 0.50x the total time" in text_of(records)
    assert "over default" not in text_of(LEARNING)


def test_more_documents_also_mean_more_steps():
    assert "more optimizer steps" in text_of(LEARNING)
    assert "more optimizer steps" not in text_of(LEARNING[:1])


def test_one_run_a_cell_is_said():
    assert "every cell was run with one seed" in text_of(LEARNING)
    assert "up to 2 times" in text_of([record(), record(replicate=1)])


def test_the_standard_error_of_accuracy_is_said():
    assert "standard error of up to 0.176" in text_of(LEARNING)  # sqrt(p (1 - p) / 8)


def test_held_out_documents_are_not_the_official_test_split():
    assert "not comparable with the official test split" in text_of(
        LEARNING, eval_split="from-train"
    )
    assert "official" not in text_of(LEARNING, eval_split="test")


def test_a_profile_that_saves_no_checkpoint_says_so():
    assert "turns off saving checkpoints" in text_of(
        LEARNING, profile(training={"save_strategy": "no"})
    )


def test_absent_accuracy_has_its_reason():
    measured = measurement(eval_accuracy=None, absent={"scores": "the weights are random"})
    assert "Scores are absent: the weights are random." in text_of([record(measurement=measured)])


def test_failures_and_warnings_are_told():
    failed = record(
        status="oom", measurement=None, failure=Failure(message="out of memory", step=7)
    )
    warned = record(
        cell(train_size=8), measurement=measurement(warnings=(run_warning("the machine was busy"),))
    )
    text = text_of([failed, warned])
    assert "at step 7: out of memory" in text
    assert "the machine was busy" in text


@pytest.mark.parametrize("word", ["offline", "sha256:m", "sha256:d", "torch 2.13.0", "a processor"])
def test_provenance(word):
    if word == "offline":
        assert "`ftbench run test`" in text_of(LEARNING)
    else:
        assert word in text_of(LEARNING)


def test_overrides_are_part_of_how_to_reproduce():
    of = profile().model_copy(update={"overrides": ("grid.max_length=[8, 16]",)})
    assert "--set 'grid.max_length=[8, 16]'" in text_of(LEARNING, of)


def test_seeds_of_an_axis_are_replicates():
    records = [record(cell(seed=seed)) for seed in (1, 2, 3)]
    assert "up to 3 times with different seeds" in text_of(records)


def test_a_profile_given_by_its_path_is_reproduced_by_its_path():
    of = profile().model_copy(update={"reference": "my profiles/x.toml"})
    assert "`ftbench run 'my profiles/x.toml'`" in text_of(LEARNING, of)


def test_cells_of_two_environments_are_told_apart():
    """The same cells again, ten times as slow: no series and no front has both as one."""
    slow = [
        record(
            one.cell,
            environment_id="z",
            measurement=measurement(eval_accuracy=0.5, total_s=10 * one.measurement.total_s),
        )
        for one in LEARNING
    ]
    text = text_of([*LEARNING, *slow])
    assert "The runs are of 2 environments." in text
    here = LEARNING[0].environment_id
    assert (
        f"Training examples 16 to 160 (at length 16, batch 4, environment {here}): a step" in text
    )
    assert "the cheapest that learns: accuracy 0.550 for 10.0 s" in text
    assert "The runs are of" not in text_of(LEARNING)


def test_a_run_in_which_nothing_finished_has_a_report():
    failed = record(status="oom", measurement=None, failure=Failure(message="out of memory"))
    assert "0 of 1 run finished." in text_of([failed])
