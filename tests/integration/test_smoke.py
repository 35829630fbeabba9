"""The whole job, for real: pretrained weights, real reviews, every line of the recipe."""

import json

import pytest

from ftbench.records.figures import BY_NAME
from ftbench.records.readings import FIRST_STEPS
from tests.integration.conftest import run

pytestmark = pytest.mark.integration


def test_every_cell_finishes(smoke):
    assert smoke.process.returncode == 0, smoke.process.stderr
    assert [record.status for record in smoke.records] == ["ok"] * 4
    assert "4 of 4 runs finished." in smoke.process.stdout


def test_output_that_is_no_terminal_is_plain(smoke):
    assert "\x1b" not in smoke.process.stdout + smoke.process.stderr
    assert smoke.process.stdout.count("[4/4]") == 1


def test_the_tables_are_written(smoke):
    assert list(smoke.cells["max_length"]) == [16, 16, 32, 32]
    assert set(BY_NAME) <= set(smoke.cells.columns)
    report = (smoke.directory.path / "report.md").read_text()
    for heading in (
        "Along length",
        "Along training examples",
        "not comparable with the official test split",
    ):
        assert heading in report


def test_every_line_of_the_recipe_left_its_trace(smoke):
    (kept,) = (smoke.directory.path / "checkpoints").glob("*-r0")
    names = {path.name for path in kept.iterdir()}
    assert {"checkpoint-2", "checkpoint-4"} <= names  # one an epoch, at 2 steps an epoch
    assert {"model.safetensors", "trainer_state.json", "tokenizer.json"} <= names
    assert {"train_results.json", "eval_results.json", "all_results.json"} <= names
    state = json.loads((kept / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"].startswith(str(kept))
    assert "eval_accuracy" in json.loads((kept / "eval_results.json").read_text())


def test_checkpoints_of_the_other_cells_are_gone(smoke):
    assert len(list((smoke.directory.path / "checkpoints").glob("*-r*"))) == 1


def test_epochs_have_losses_and_accuracy(smoke):
    for record in smoke.records:
        epochs = record.measurement.epochs
        assert [epoch.epoch for epoch in epochs] == [1, 2]
        for epoch in epochs:
            assert 0 <= epoch.scores["accuracy"] <= 1
            assert epoch.eval_loss > 0
            assert epoch.train_loss > 0
        # The best epoch is loaded at the end and evaluated again.
        assert record.measurement.score("accuracy").value == max(
            epoch.scores["accuracy"] for epoch in epochs
        )


def test_the_mean_of_the_step_losses_is_the_trainers_training_loss(smoke):
    for record in smoke.records:
        losses = smoke.steps(record)["loss"]
        assert losses.mean() == pytest.approx(record.measurement.train_loss, rel=1e-4)


def test_every_step_is_kept_and_counts_what_passed(smoke):
    for record in smoke.records:
        table = smoke.steps(record)
        per_epoch = record.cell.train_size // 8
        assert list(table["step"]) == list(range(1, 2 * per_epoch + 1))
        assert list(table["epoch"]) == [0] * per_epoch + [1] * per_epoch
        assert table["samples"].sum() == 2 * record.cell.train_size
        assert (table["padded_tokens"] == 8 * record.cell.max_length).all()
        assert (table["real_tokens"] <= table["padded_tokens"]).all()
        assert (table["data_wait_s"] < table["step_s"]).all()


def test_published_rates_are_those_of_the_raw_samples(smoke):
    for record in smoke.records:
        summary = record.measurement.steps
        if summary is None:
            continue
        steps = smoke.steps(record)
        later = steps[steps["step"] > summary.warmup_steps]
        assert summary.warmup_steps >= FIRST_STEPS
        seconds = later["step_s"].sum()
        assert summary.median_s == pytest.approx(later["step_s"].median())
        assert summary.samples_per_s == pytest.approx(later["samples"].sum() / seconds)
        assert summary.real_tokens_per_s == pytest.approx(later["real_tokens"].sum() / seconds)
        assert summary.padded_tokens_per_s == pytest.approx(later["padded_tokens"].sum() / seconds)
        peak = record.measurement.peak_matmul_flops
        assert summary.mfu == pytest.approx(later["flops"].sum() / seconds / peak)
        assert 0.01 < summary.mfu < 1


def test_phases_are_the_whole_time_and_count_what_passed(smoke):
    for record in smoke.records:
        measured = record.measurement
        phases = measured.phases
        assert set(phases) == {"load", "first_steps", "train", "evaluation", "save"}
        assert measured.total_s == pytest.approx(sum(phase.wall_s for phase in phases.values()))
        assert measured.total_s < measured.worker_s < record.wall_s
        assert phases["evaluation"].entries == 3  # one an epoch, and the closing one
        assert phases["evaluation"].samples == 3 * 16
        assert phases["first_steps"].steps == FIRST_STEPS
        assert phases["first_steps"].samples + phases["train"].samples == 2 * record.cell.train_size
        steps = smoke.steps(record)["step_s"].sum()
        assert steps <= phases["first_steps"].wall_s + phases["train"].wall_s


def test_peaks_are_there_by_phase_and_absent_ones_have_a_reason(smoke):
    for record in smoke.records:
        measured = record.measurement
        peaks = {name: phase.memory.peak_rss_bytes for name, phase in measured.phases.items()}
        assert measured.memory.peak_rss_bytes == max(peaks.values())
        # 22.7 M parameters: weights, gradients and Adam's two moments are 363 MB of float32.
        assert peaks["train"] - peaks["load"] > 200e6
        assert measured.memory.peak_allocated_bytes is None
        assert "CPU" in measured.absent["memory.peak_allocated_bytes"]


def test_provenance_is_kept(smoke):
    (environment,) = smoke.directory.environments().values()
    assert environment.packages["torch"].startswith("2.")
    assert smoke.directory.read_profile().training["logging_steps"] == 100
    for record in smoke.records:
        assert record.cell.model.source.revision.startswith("sha256:")
        assert record.cell.data.source.revision.startswith("sha256:")
        assert (smoke.directory.path / "logs" / f"{record.cell_id}-r0.log").stat().st_size > 0


def test_the_same_command_again_runs_nothing(smoke):
    before = {
        file: file.stat().st_mtime_ns for file in (smoke.directory.path / "records").iterdir()
    }
    again = run("smoke", smoke.directory.path)
    assert again.process.returncode == 0
    assert "4 of 4 runs are done already" in again.process.stdout
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_missing_cell_is_run_again_and_comes_out_the_same(smoke):
    lost = smoke.records[0]
    file = smoke.directory.file("records", f"{lost.cell_id}-r0", ".json")
    others = {f: f.stat().st_mtime_ns for f in file.parent.iterdir() if f != file}
    file.unlink()
    again = run("smoke", smoke.directory.path)
    assert again.process.returncode == 0, again.process.stderr
    assert {f: f.stat().st_mtime_ns for f in others} == others
    (found,) = (record for record in again.records if record.cell_id == lost.cell_id)
    assert found.measurement.eval_loss == lost.measurement.eval_loss
    assert found.measurement.train_loss == lost.measurement.train_loss
    assert [e.train_loss for e in found.measurement.epochs] == [
        e.train_loss for e in lost.measurement.epochs
    ]
