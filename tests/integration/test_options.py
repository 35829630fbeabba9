"""Cells with other settings than the recipe's, on a model so small that each takes a second."""

import platform

import pytest
from datasets import Dataset

from tests.integration.conftest import SMALL, run, some_long

pytestmark = pytest.mark.integration


def small(out, *arguments, **settings):
    fixed = {name.replace(".", "__"): value for name, value in SMALL.items()}
    return run("smoke", out, *arguments, **(fixed | settings))


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Padding and attention as axes, with accumulation, and a last batch that is smaller."""
    return small(
        tmp_path_factory.mktemp("varied") / "run",
        grid__padding='["max_length", "longest"]',
        grid__attn_implementation='["eager", "sdpa"]',
        grid__max_length="[256]",
        grid__train_size="[20]",
        training__gradient_accumulation_steps="2",
        training__save_strategy="no",
    )


def by(run_, **values):
    (record,) = (r for r in run_.records if all(r.axis_value(k) == v for k, v in values.items()))
    return record


def test_padding_and_attention_can_be_axes(varied):
    assert varied.process.returncode == 0, varied.process.stderr
    assert len(varied.records) == 4
    assert {"padding", "attn_implementation"} <= set(varied.cells.columns)


def test_attention_changes_nothing_but_rounding(varied):
    losses = [
        by(varied, padding="longest", attn_implementation=a).measurement.eval_loss
        for a in ("eager", "sdpa")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_padding_to_the_longest_pads_less_and_reads_the_same(varied):
    full = by(varied, padding="max_length", attn_implementation="sdpa")
    longest = by(varied, padding="longest", attn_implementation="sdpa")
    tables = [varied.steps(full), varied.steps(longest)]
    assert tables[0]["real_tokens"].sum() == tables[1]["real_tokens"].sum()
    assert tables[1]["padded_tokens"].sum() < tables[0]["padded_tokens"].sum()
    assert full.measurement.eval_loss == pytest.approx(longest.measurement.eval_loss, rel=1e-4)
    assert longest.measurement.phases["evaluation"].padded_tokens is None


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Attention scores of 64 MiB a layer, which glibc gives back by default whenever they are freed."""
    return small(
        tmp_path_factory.mktemp("kept") / "run",
        grid__malloc='["default", "keep"]',
        grid__max_length="[256]",
        grid__train_size="[512]",
        grid__per_device_train_batch_size="[128]",
        training__save_strategy="no",
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.long
def test_memory_that_is_kept_is_not_faulted_in_at_each_step(kept):
    assert kept.process.returncode == 0, kept.process.stderr
    training = {
        malloc: by(kept, malloc=malloc).measurement.phases["train"]
        for malloc in ("default", "keep")
    }
    assert all(0 <= phase.kernel_s <= phase.cpu_s for phase in training.values())
    scores = 64 * 2**20 // 4096
    assert training["default"].page_faults / training["default"].steps > scores
    assert training["keep"].page_faults < training["default"].page_faults / 4
    losses = [by(kept, malloc=malloc).measurement.eval_loss for malloc in ("default", "keep")]
    assert losses[0] == losses[1]
    text = (kept.directory.path / "report.md").read_text()
    assert "malloc keep over default" in text


def test_accumulated_batches_are_one_step(varied):
    # 20 documents in batches of 8 are 8 + 8 and then 4: two optimizer steps an epoch.
    assert list(varied.steps(varied.records[0])["samples"]) == [16, 4, 16, 4]


def test_losses_of_accumulated_batches_add_up_to_the_trainers(varied):
    for record in varied.records:
        losses = varied.steps(record)["loss"]
        assert losses.mean() == pytest.approx(record.measurement.train_loss, rel=1e-4)


def test_accumulation_averages_and_does_not_add(varied):
    # Two classes and random weights: the loss of a step is near ln 2, however many batches it has.
    for record in varied.records:
        assert record.measurement.train_loss == pytest.approx(0.693, abs=0.1)


def test_random_weights_have_a_cost_but_no_accuracy(varied):
    for record in varied.records:
        assert record.measurement.scores == ()
        assert "random" in record.measurement.absent["scores"]
        assert record.measurement.steps.median_s > 0
    assert varied.cells["eval_accuracy"].isna().all()
    report = (varied.directory.path / "report.md").read_text()
    assert "Scores are absent: the weights are random" in report


def test_a_profile_that_saves_no_checkpoint_says_so(varied):
    assert "turns off saving checkpoints" in (varied.directory.path / "report.md").read_text()


@pytest.mark.parametrize(
    ("settings", "evaluations", "epochs"),
    some_long(
        [
            ({"training__eval_strategy": "no", "training__save_strategy": "no"}, 1, [False, False]),
            (
                {
                    "training__eval_strategy": "steps",
                    "training__eval_steps": "1",
                    "training__save_strategy": "no",
                },
                5,
                [True, True],
            ),
            ({"training__save_strategy": "best", "training__max_steps": "3"}, 3, [True, True]),
            ({"training__num_train_epochs": "1.5", "training__bf16": "true"}, None, [True, True]),
        ]
    ),
)
def test_other_schedules(tmp_path, settings, evaluations, epochs):
    done = small(tmp_path / "run", grid__max_length="[16]", grid__train_size="[16]", **settings)
    assert done.process.returncode == 0, done.process.stdout + done.process.stderr
    measured = done.records[0].measurement
    if evaluations is not None:
        assert measured.phases["evaluation"].entries == evaluations
    assert [epoch.eval_loss is not None for epoch in measured.epochs] == epochs
    assert all(epoch.train_loss is not None for epoch in measured.epochs)


@pytest.mark.long
def test_replicates_differ_in_their_seed(tmp_path):
    done = small(tmp_path / "run", "--only", "max_length=16,train_size=16", run__replicates="2")
    assert done.process.returncode == 0, done.process.stderr
    first, second = done.records
    assert (first.seed, second.seed) == (42, 43)
    assert first.cell_id == second.cell_id
    assert first.measurement.train_loss != second.measurement.train_loss
    assert list(done.cells["replicate"]) == [0, 1]


def test_the_users_own_csv_with_three_named_classes(tmp_path):
    words = {"good": "fine", "bad": "awful", "so-so": "plain"}
    rows = {
        "review": [f"a {words[label]} film {i}" for i in range(20) for label in words],
        "verdict": [label for _ in range(20) for label in words],
    }
    Dataset.from_dict(rows).to_csv(tmp_path / "reviews.csv")
    done = small(
        tmp_path / "run",
        "--only",
        "max_length=16,train_size=16",
        workload__dataset=str(tmp_path / "reviews.csv"),
        workload__text_column="review",
        workload__label_column="verdict",
        workload__eval_size="6",
    )
    assert done.process.returncode == 0, done.process.stderr
    preparation = done.directory.read_preparation()
    assert preparation.labels == ("bad", "good", "so-so")
    assert (preparation.train_pool, preparation.eval_pool) == (48, 12)


@pytest.mark.long
def test_spawned_workers_do_the_same(tmp_path):
    settings = {"grid__max_length": "[16]", "grid__train_size": "[16]"}
    losses = [
        small(tmp_path / isolation, run__isolation=isolation, **settings)
        .records[0]
        .measurement.eval_loss
        for isolation in ("spawn", "forkserver")
    ]
    assert losses[0] == losses[1]
