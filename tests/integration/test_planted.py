"""Planted truth: what is put into a known phase or step is in the record, there and nowhere else.

Memory within 1 % of what was planted. A pause is at least as long as it was asked for, exactly; how
much longer is up to the machine, so what is bounded from above is bounded by the pause itself: a
step of a few milliseconds would have to be held up for as long as that.
"""

import numpy as np
import pytest

from ftbench.base.units import MIB
from tests.integration.direct import LONG, SHORT, Bench, write_documents

pytestmark = pytest.mark.integration

BATCH = 8
SMALL, LARGE = 96, 800  # documents: 12 steps, and 100
EVALUATED = LARGE // 4
STEPS = SMALL // BATCH
# Memory planted, and how far its record may be off.
LOAD_MIB, EVALUATION_MIB, STEP_MIB, TENSOR_BYTES = 512, 256, 256, 384 * MIB + 1
WITHIN = 0.01
# From one worker to the next a phase's peak moves by up to 4 MiB where nothing is planted.
WORKERS_DIFFER = 16 * MIB
NAP_S, STALL_S, A_TOKEN_S = 0.5, 0.4, 0.005


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Documents of SHORT tokens, and two of LONG ones: one batch in fifty is wide."""
    folder = tmp_path_factory.mktemp("planted")
    write_documents(folder / "films.csv", train=LARGE, evaluation=EVALUATED, long=2)
    return Bench(
        folder,
        grid={
            "max_length": [LONG],
            "per_device_train_batch_size": [BATCH],
            "train_size": [SMALL, LARGE],
            "per_device_eval_batch_size": [BATCH, EVALUATED],
        },
        dataset=folder / "films.csv",
        text_column="text",
        label_column="label",
        eval_size=EVALUATED,
        config={"intermediate_size": 1024},
    )


def measured(bench, train_size=SMALL, eval_batch=BATCH, **plants):
    cell = bench.cell(train_size=train_size, per_device_eval_batch_size=eval_batch)
    return bench.measure(cell, plants={"threads": {"count": 1}} | plants)


@pytest.fixture(scope="module")
def control(bench):
    """No memory, pause or stall."""
    return measured(bench)


@pytest.fixture(scope="module")
def around(bench):
    """Memory before and after training, and a pause in step 7."""
    return measured(
        bench,
        memory_in_load={"size_mib": LOAD_MIB},
        memory_in_evaluation={"size_mib": EVALUATION_MIB},
        sleep_in_step={"step": 7, "seconds": NAP_S},
    )


@pytest.fixture(scope="module")
def late(bench):
    """Memory late in training, and a stall of the data loader at batch 6."""
    return measured(
        bench,
        memory_in_step={"step": 11, "size_mib": STEP_MIB},
        stall_of_batch={"batch": 6, "seconds": STALL_S},
    )


@pytest.fixture(scope="module")
def tensor(bench):
    """A tensor in step 5, and a stall of the data loader at batch 2."""
    return measured(
        bench,
        tensor_only_in_step={"step": 5, "size_bytes": TENSOR_BYTES},
        stall_of_batch={"batch": 2, "seconds": STALL_S},
    )


@pytest.fixture(scope="module")
def wide(bench):
    """A hundred steps that take as long as their documents are, two of them four times as long."""
    return measured(bench, LARGE, sleep_by_length={"seconds_per_token": A_TOKEN_S})


@pytest.fixture(scope="module")
def evaluates_more(bench):
    """The whole evaluation pool in one batch."""
    return measured(bench, eval_batch=EVALUATED)


@pytest.mark.parametrize(
    ("run", "plant", "phase", "planted"),
    [
        ("around", "memory_in_load", "load", LOAD_MIB * MIB),
        ("around", "memory_in_evaluation", "evaluation", EVALUATION_MIB * MIB),
        ("late", "memory_in_step", "train", STEP_MIB * MIB),
        ("tensor", "tensor_only_in_step", "train", TENSOR_BYTES),
    ],
)
def test_memory_is_in_the_peak_of_its_phase(request, run, plant, phase, planted):
    found = request.getfixturevalue(run)
    raised = found.rss(phase) - found.resident[plant]
    assert raised == pytest.approx(planted, rel=WITHIN)


@pytest.mark.parametrize(
    ("run", "planted_in"),
    [("around", {"load", "evaluation"}), ("late", {"train"}), ("tensor", {"train"})],
)
def test_memory_is_in_no_other_phases_peak(request, control, run, planted_in):
    found = request.getfixturevalue(run)
    for phase in control.measurement.phases.keys() - planted_in:
        assert found.rss(phase) == pytest.approx(control.rss(phase), abs=WORKERS_DIFFER)


def test_the_cells_peak_is_the_phase_with_the_most(around, late, tensor):
    for found, phase in ((around, "load"), (late, "train"), (tensor, "train")):
        assert found.measurement.memory.peak_rss_bytes == found.rss(phase)


def test_evaluation_can_set_the_peak(control, evaluates_more):
    # One tensor of the feed-forward layer alone, of 200 documents and not 8.
    widened = (EVALUATED - BATCH) * SHORT * 1024 * 4
    assert evaluates_more.rss("evaluation") > evaluates_more.rss("train") + widened
    assert evaluates_more.measurement.memory.peak_rss_bytes == evaluates_more.rss("evaluation")
    assert evaluates_more.rss("train") == pytest.approx(control.rss("train"), abs=WORKERS_DIFFER)


def rows(found, column, *, above):
    return list(found.steps.loc[found.steps[column] >= above, "step"])


def test_a_slow_step_is_the_one_that_paused(around):
    others = around.steps[around.steps["step"] != 7]["step_s"]
    assert rows(around, "step_s", above=NAP_S) == [7]
    assert around.steps["step_s"][6] >= NAP_S + others.min() / 2  # its own work is there as well
    assert rows(around, "data_wait_s", above=NAP_S) == []  # no batch was waited for
    assert around.measurement.steps.median_s < NAP_S


def test_a_pause_is_in_the_phase_and_in_no_other(control, around):
    after_the_first = around.steps["step_s"][2:].sum()
    assert around.phase("train").wall_s >= after_the_first >= NAP_S
    assert around.measurement.train_s >= around.steps["step_s"].sum()
    assert around.phase("first_steps").wall_s >= around.steps["step_s"][:2].sum()
    assert around.phase("first_steps").wall_s < control.phase("first_steps").wall_s + NAP_S


# One batch is fetched ahead: batch 6 in step 5; and batch 2 with the first, in step 1.
@pytest.mark.parametrize(("run", "step"), [("late", 5), ("tensor", 1)])
def test_a_stall_of_the_loader_is_waited_for_in_the_step_before(request, run, step):
    found = request.getfixturevalue(run)
    assert rows(found, "data_wait_s", above=STALL_S) == [step]
    row = found.steps.iloc[step - 1]
    assert row["step_s"] >= row["data_wait_s"] >= STALL_S
    phase = found.phase("first_steps" if step <= 2 else "train")
    assert phase.wall_s >= phase.data_wait_s >= STALL_S
    assert found.measurement.steps.data_wait_median_s < STALL_S


def test_one_wide_batch_in_fifty_stands_out_and_moves_no_median(wide):
    steps, table = wide.measurement.steps, wide.steps
    planted = rows(wide, "length", above=LONG)
    assert len(table) == LARGE // BATCH
    assert len(planted) == 2
    assert rows(wide, "step_s", above=LONG * A_TOKEN_S) == planted
    after = table[table["step"] > steps.warmup_steps]
    narrow = after[after["length"] == SHORT]["step_s"]
    assert steps.median_s == pytest.approx(narrow.median(), rel=0.02)
    assert steps.median_s >= SHORT * A_TOKEN_S
    assert steps.q3_s < LONG * A_TOKEN_S


def test_tokens_of_a_wide_batch_are_counted_by_hand(wide):
    # One document of LONG tokens, and BATCH - 1 of SHORT ones padded to it.
    planted = wide.steps[wide.steps["length"] == LONG]
    rest = wide.steps[wide.steps["length"] != LONG]
    assert set(planted["padded_tokens"]) == {BATCH * LONG}
    assert set(planted["real_tokens"]) == {LONG + (BATCH - 1) * SHORT}
    assert set(rest["padded_tokens"]) == set(rest["real_tokens"]) == {BATCH * SHORT}


RUNS = ["control", "around", "late", "tensor", "wide", "evaluates_more"]


@pytest.mark.parametrize("run", RUNS)
def test_every_rate_is_what_the_raw_rows_give(request, run):
    found = request.getfixturevalue(run)
    steps, table = found.measurement.steps, found.steps
    after = table[table["step"] > steps.warmup_steps]
    seconds = after["step_s"].sum()
    assert steps.seconds == pytest.approx(seconds)
    assert steps.samples == after["samples"].sum()
    assert steps.samples_per_s == pytest.approx(after["samples"].sum() / seconds)
    assert steps.real_tokens_per_s == pytest.approx(after["real_tokens"].sum() / seconds)
    assert steps.padded_tokens_per_s == pytest.approx(after["padded_tokens"].sum() / seconds)
    assert steps.flops_per_s == pytest.approx(after["flops"].sum() / seconds)
    peak = found.measurement.peak_matmul_flops
    assert steps.mfu == pytest.approx(after["flops"].sum() / seconds / peak)


@pytest.mark.parametrize("run", RUNS)
def test_medians_and_counts_are_what_the_raw_rows_give(request, run):
    found = request.getfixturevalue(run)
    steps, table = found.measurement.steps, found.steps
    after = table[table["step"] > steps.warmup_steps]  # every batch is full here
    assert steps.count == len(after)
    quartiles = np.percentile(after["step_s"], [25, 50, 75])
    assert (steps.q1_s, steps.median_s, steps.q3_s) == pytest.approx(tuple(quartiles))
    assert steps.data_wait_median_s == pytest.approx(np.median(after["data_wait_s"]))
    for phase, part in (("first_steps", table[:2]), ("train", table[2:])):
        counted = found.phase(phase)
        for column in ("samples", "real_tokens", "padded_tokens", "data_wait_s"):
            assert getattr(counted, column) == pytest.approx(part[column].sum())


def test_a_product_slower_than_the_steps_is_measured_again(bench, monkeypatch):
    slow = bench.preparation.model_copy(update={"peak_matmul_flops": {"float32": 1.0}})
    monkeypatch.setattr(bench, "preparation", slow)
    found = measured(bench).measurement
    assert found.peak_matmul_flops > 1e6
    assert 0 < found.steps.mfu <= 1
    assert any("measured again" in run_warning.message for run_warning in found.warnings)
