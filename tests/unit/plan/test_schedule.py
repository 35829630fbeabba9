"""The job: how often a run does what, by hand; 13 steps of 8 are an epoch of 100 documents."""

import pytest

from ftbench.plan.schedule import schedule_of
from tests.factories import cell


def job(train_size=100, batch=8, world_size=1, **training):
    of = cell(train_size=train_size, per_device_train_batch_size=batch, **training)
    return schedule_of(of, world_size)


def test_an_epoch_ends_with_what_is_left():
    found = job(num_train_epochs=3)
    assert (found.steps, found.documents) == (3 * 13, 300)


def test_documents_that_make_no_full_batch_are_dropped_where_that_is_asked_for():
    found = job(num_train_epochs=3, dataloader_drop_last=True)
    assert (found.steps, found.documents) == (3 * 12, 3 * 96)


def test_a_part_of_an_accumulation_is_a_step():
    found = job(num_train_epochs=2, gradient_accumulation_steps=4)
    assert (found.steps, found.documents) == (2 * 4, 200)


def test_steps_that_are_given_decide():
    found = job(num_train_epochs=3, max_steps=26)
    assert (found.steps, found.documents) == (26, 200)


def test_a_part_of_an_epoch():
    assert job(num_train_epochs=1.5).steps == 20  # of 13, rounded up


@pytest.mark.parametrize(
    ("training", "evaluations"),
    [
        ({"eval_strategy": "epoch", "num_train_epochs": 3}, 3 + 1),
        ({"eval_strategy": "no"}, 1),
        ({"eval_strategy": "no", "eval_on_start": True}, 2),
        ({"eval_strategy": "steps", "eval_steps": 10, "num_train_epochs": 3}, 4 + 1),
        ({"eval_strategy": "steps", "eval_steps": 0.25, "num_train_epochs": 3}, 4 + 1),
        ({"eval_strategy": "steps", "eval_steps": 15, "num_train_epochs": 3}, 3 + 1),
        ({"eval_strategy": "steps", "logging_steps": 13, "num_train_epochs": 3}, 3 + 1),
        ({"eval_strategy": "steps", "eval_steps": 10, "eval_delay": 15}, 3 + 1),
        ({"eval_strategy": "steps", "eval_steps": 10, "eval_delay": 40}, 1),
        ({"eval_strategy": "epoch", "num_train_epochs": 3, "eval_delay": 2}, 2 + 1),
    ],
)
def test_evaluations_are_those_of_the_strategy_and_one_at_the_end(training, evaluations):
    assert job(**training).evaluations == evaluations


@pytest.mark.parametrize(
    ("training", "checkpoints"),
    [
        ({"save_strategy": "epoch", "num_train_epochs": 3}, 3),
        ({"save_strategy": "no"}, 0),
        ({"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3}, 8),
        ({"save_strategy": "steps", "num_train_epochs": 3}, 1),  # every 500, and at the end
        ({"save_strategy": "best", "num_train_epochs": 3}, 3),  # at most as often as evaluated
    ],
)
def test_checkpoints_are_those_of_the_strategy(training, checkpoints):
    assert job(**training).checkpoints == checkpoints


def test_evaluated_documents_come_in_their_own_batches():
    found = job(per_device_eval_batch_size=3)
    assert (found.eval_documents, found.eval_batches) == (8, 3)


@pytest.mark.parametrize(
    ("world_size", "drop_last"),
    [(1, True), (2, False), (3, False), (2, True), (5, True)],
)
def test_several_processes_share_the_batches_as_accelerate_does(world_size, drop_last):
    """The number of batches of each process, and the examples in them, are those of accelerate itself."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    shards = [
        list(BatchSamplerShard(BatchSampler(range(100), 8, drop_last), world_size, rank))
        for rank in range(world_size)
    ]
    found = job(num_train_epochs=1, world_size=world_size, dataloader_drop_last=drop_last)
    assert {found.steps} == {len(shard) for shard in shards}
    assert found.documents == sum(len(batch) for shard in shards for batch in shard)
    assert found.world_size == world_size


def test_each_process_evaluates_its_part():
    assert job(per_device_eval_batch_size=2).eval_batches == 4
    assert job(per_device_eval_batch_size=2, world_size=3).eval_batches == 2
