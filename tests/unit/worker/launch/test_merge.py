import pandas as pd
import pytest

from ftbench.records.measurement import Measurement
from ftbench.records.messages import LaunchRequest, TwoStepPass, TwoStepPasses
from ftbench.records.readings import Epoch, Load
from ftbench.worker.launch.merge import merged_answer, merged_measurement, merged_steps
from ftbench.worker.measure.steps import write_steps
from tests.factories import cell, device, measurement, run_warning

TIMES = ([1.0, 0.5, 0.4, 0.6], [1.0, 0.7, 0.3, 0.8])
LOSSES = ([0.9, 0.8, 0.7, 0.6], [0.7, 0.6, 0.5, 0.2])


def table(rank):
    return pd.DataFrame(
        {
            "step": [1, 2, 3, 4],
            "epoch": 0,
            "began_s": [0.0, 1.0, 2.0, 3.0],
            "step_s": TIMES[rank],
            "data_wait_s": 0.01 * (rank + 1),
            "samples": 4,
            "length": [16, 16, 16 + rank, 16],
            "real_tokens": 50,
            "padded_tokens": 64,
            "loss": LOSSES[rank],
            "flops": 10.0,
        }
    )


@pytest.fixture
def steps():
    return merged_steps([table(0), table(1)])


def test_a_step_takes_as_long_as_on_its_slowest_rank(steps):
    assert list(steps["step_s"]) == [1.0, 0.7, 0.4, 0.8]
    assert list(steps["data_wait_s"]) == [0.02] * 4
    assert list(steps["length"]) == [16, 16, 17, 16]


def test_counts_are_sums_and_the_loss_is_the_mean(steps):
    for name, value in (
        ("samples", 8),
        ("real_tokens", 100),
        ("padded_tokens", 128),
        ("flops", 20.0),
    ):
        assert list(steps[name]) == [value] * 4
    assert list(steps["loss"]) == pytest.approx([0.8, 0.7, 0.6, 0.4])
    assert list(steps.columns) == list(table(0).columns)
    assert list(steps["began_s"]) == [0.0, 1.0, 2.0, 3.0]


def two(first=None, second=None):
    return [measurement(**(first or {})), measurement(**(second or {}))]


def test_a_loss_that_is_no_number_on_one_rank_is_none_of_the_batch():
    broken = table(1).assign(loss=[float("nan"), *LOSSES[1][1:]])
    assert list(merged_steps([table(0), broken])["loss"].isna()) == [True, False, False, False]


def test_ranks_are_numbered_and_together_they_have_all_examples(steps):
    merged = merged_measurement(two(), steps)
    assert [rank.rank for rank in merged.ranks] == [0, 1]
    assert merged.steps == merged.together
    assert merged.together.samples == 16  # of the last two steps, after warm-up
    assert merged.together.samples_per_s == pytest.approx(16 / 1.2)
    assert merged.together.median_s == pytest.approx(0.6)


def test_losses_are_means_over_the_ranks(steps):
    def epochs(loss):
        return (Epoch(epoch=1, train_loss=loss, eval_loss=0.5),)

    merged = merged_measurement(
        two({"train_loss": 0.8, "epochs": epochs(0.9)}, {"train_loss": 0.4, "epochs": epochs(0.5)}),
        steps,
    )
    assert merged.train_loss == pytest.approx(0.6)
    assert merged.epochs[0].train_loss == pytest.approx(0.7)
    assert merged.epochs[0].eval_loss == 0.5


def test_a_loss_that_one_rank_lacks_is_absent(steps):
    absent = {"train_loss": "it is not a finite number"}
    merged = merged_measurement(two({}, {"train_loss": None, "absent": absent}), steps)
    assert merged.train_loss is None
    assert merged.absent == {"ranks.1.train_loss": "it is not a finite number"}


@pytest.mark.parametrize(("kind", "peak"), [("cpu", 3e9), ("cuda", 5e9)])
def test_cards_add_up_and_processors_are_shared(steps, kind, peak):
    of = {"device": device(kind=kind)}
    merged = merged_measurement(
        two({"peak_matmul_flops": 2e9, **of}, {"peak_matmul_flops": 3e9, **of}), steps
    )
    assert merged.peak_matmul_flops == peak
    assert merged.together.mfu == pytest.approx(40.0 / 1.2 / peak)


def test_other_ranks_are_no_strangers_on_the_machine(steps, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    busy = Load(average_start=0, average_end=0, others_cpu_share=0.75, steal_share=0)
    # Rank 1 used 10 s of the processors during 10 s on two: half of them.
    merged = merged_measurement(two({"load": busy, "warnings": (run_warning(),)}), steps)
    assert merged.load.others_cpu_share == pytest.approx(0.25)
    (warning,) = [one for one in merged.warnings if one.name == "others_busy"]
    assert warning.value == pytest.approx(0.25)


def test_a_warning_of_another_rank_is_kept_with_its_number(steps):
    odd = run_warning("its parameters are new", "new_weights")
    merged = merged_measurement(two({}, {"warnings": (odd, run_warning())}), steps)
    assert ("new_weights", "rank 1: its parameters are new") in [
        (one.name, one.message) for one in merged.warnings
    ]


def launched(tmp_path, **body):
    several = cell(num_processes=2).model_dump(mode="json")
    return LaunchRequest(
        module="m",
        workspace=str(tmp_path),
        request={"cell": several, "steps_file": "steps/a.parquet", **body},
        processes=2,
        log="logs/a.log",
    )


def test_the_answer_of_a_cell_has_a_table_of_all_ranks_steps(tmp_path, steps):
    for rank in range(2):
        write_steps(table(rank), str(tmp_path / f"steps/a-rank{rank}.parquet"))
    answers = [{"status": "ok", "measurement": one.model_dump(mode="json")} for one in two()]
    answer = merged_answer(launched(tmp_path), answers)
    assert len(Measurement.model_validate(answer["measurement"]).ranks) == 2
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "steps/a.parquet"), steps)


def test_the_answer_of_two_step_passes_has_one_per_rank(tmp_path):
    answers = [
        {"status": "ok", "two_step": {"phases": {}, "memory": {"peak_cpu_tensors_bytes": size}}}
        for size in (7, 9)
    ]
    answer = merged_answer(launched(tmp_path), answers)
    found = TwoStepPasses.model_validate(answer["two_step"])
    assert [one.memory.peak_cpu_tensors_bytes for one in found.ranks] == [7, 9]
    assert all(isinstance(one, TwoStepPass) for one in found.ranks)
