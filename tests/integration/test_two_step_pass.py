"""Two steps of a cell: the peak of the CPU's tensors against a count by hand, and against plants."""

import pytest

from ftbench.base.units import MIB
from ftbench.records.messages import TwoStepPass
from ftbench.records.record import Failure
from tests.integration.direct import LONG, SHORT, Bench, write_documents

pytestmark = pytest.mark.integration

FEW, MANY, TOO_MANY = (8, 16, 24), (64, 96, 128), 512
FLOAT = 4


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Short documents, one long; batches that fit into them, and one that doesn't."""
    folder = tmp_path_factory.mktemp("two_step")
    write_documents(folder / "films.csv", train=160, evaluation=40, long=1)
    return Bench(
        folder,
        grid={
            "max_length": [SHORT, LONG],
            "per_device_train_batch_size": [*FEW, *MANY, TOO_MANY],
            "train_size": [160],
        },
        dataset=folder / "films.csv",
        text_column="text",
        label_column="label",
        eval_size=40,
    )


@pytest.fixture(scope="module")
def peaks(bench):
    """The peak of the first steps in bytes, by batch size, documents of SHORT tokens."""
    return {batch: peak(trial_of(bench, batch, SHORT)) for batch in FEW}


@pytest.fixture(scope="module")
def two_step(bench):
    return trial_of(bench, 8)


def trial_of(bench, batch, max_length=LONG, **plants):
    cell = bench.cell(per_device_train_batch_size=batch, max_length=max_length)
    answer = bench.two_step(cell, plants=plants)
    assert answer["status"] == "ok", answer
    return TwoStepPass.model_validate(answer["two_step"])


def peak(two_step, phase="first_steps"):
    return two_step.phases[phase].peak_cpu_tensors_bytes


def test_weights_gradients_and_both_moments_are_in_the_peak(bench, two_step):
    weights = bench.preparation.parameters * FLOAT
    buffers = 2 * 512 * 8  # BERT's position ids and token types, int64
    assert weights <= peak(two_step, "load") <= weights + buffers + MIB / 8
    # What comes with the documents is small here: hidden states of width 32.
    assert 4 * weights <= peak(two_step) <= 4 * weights + MIB
    # Gradients are gone after the last step: `set_to_none`.
    assert 3 * weights <= peak(two_step, "evaluation") < 4 * weights


def test_the_peak_grows_with_the_documents_and_with_nothing_else(peaks):
    few, more, most = (peaks[batch] for batch in FEW)
    assert most - more == more - few > 0


def test_large_batches_peak_at_another_moment_and_grow_faster(bench, peaks):
    # Not when the optimizer works any more, but in the backward pass, with activations.
    few, more, most = (peak(trial_of(bench, batch)) for batch in MANY)
    assert most - more == more - few
    a_token = (most - more) / (MANY[2] - MANY[1]) / LONG
    assert a_token > 2 * (peaks[24] - peaks[8]) / 16 / SHORT


def test_a_second_pass_gives_the_same_to_the_byte(bench, two_step):
    assert trial_of(bench, 8).phases == two_step.phases


def test_evaluation_takes_less_than_training(two_step):
    assert peak(two_step, "evaluation") < peak(two_step)
    assert two_step.memory.peak_cpu_tensors_bytes == peak(two_step)


def test_every_batch_is_of_the_longest_document(two_step, peaks):
    # Batches of 8 that are longer: at least their ids, mask and hidden state.
    wider = 8 * (LONG - SHORT)
    assert peak(two_step) - peaks[8] >= wider * (8 + 8) + wider * 32 * FLOAT


def test_a_batch_is_no_larger_than_the_training_subset(bench):
    # 160 documents in batches of 512 are batches of 160.
    few, more = (peak(trial_of(bench, batch)) for batch in MANY[1:])
    a_document = (more - few) / (MANY[2] - MANY[1])
    too_many = peak(trial_of(bench, TOO_MANY))
    assert too_many <= more + (160 - MANY[2]) * a_document


def test_why_the_other_phases_are_absent(two_step):
    assert set(two_step.phases) == {"load", "first_steps", "evaluation"}
    assert "two steps" in two_step.absent["train"]
    assert "saves nothing" in two_step.absent["save"]


def test_nothing_is_left_behind(bench, two_step):
    folder = bench.folder / "two_step"
    assert not folder.exists() or not list(folder.rglob("*"))


def test_a_tensor_in_the_second_step_is_there_to_the_byte(bench, two_step):
    size = 256 * MIB + 1
    planted = trial_of(bench, 8, tensor_in_step={"step": 2, "size_bytes": size})
    for phase in ("first_steps", "evaluation"):
        assert peak(planted, phase) == peak(two_step, phase) + size
    assert peak(planted, "load") == peak(two_step, "load")


def test_without_tensors_the_ledger_is_kept_and_nothing_is_evaluated(bench):
    cell = bench.cell(per_device_train_batch_size=8, max_length=LONG)
    two_step = TwoStepPass.model_validate(bench.two_step(cell, tensors=False)["two_step"])
    assert set(two_step.phases) == {"load", "first_steps"}
    assert two_step.memory.peak_rss_bytes == two_step.phases["first_steps"].peak_rss_bytes > 0
    assert two_step.memory.peak_cpu_tensors_bytes is None
    assert "only trains" in two_step.absent["evaluation"]
    assert "CPU" in two_step.absent["memory.peak_allocated_bytes"]


def test_an_error_is_a_failure_with_its_phase_and_step(bench):
    cell = bench.cell(per_device_train_batch_size=8, max_length=LONG)
    answer = bench.two_step(cell, plants={"error_in_step": {"step": 2, "message": "out of memory"}})
    assert answer["status"] == "oom"
    failure = Failure.model_validate(answer["failure"])
    assert (failure.phase, failure.step) == ("first_steps", 1)
    assert "out of memory" in failure.message
