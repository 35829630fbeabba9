"""Which cells share a two-step pass: those whose two steps need the same memory."""

import pytest

from ftbench.execute.cpu_tensors import two_step_key
from tests.factories import cell


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"train_size": 8}, {"train_size": 16}, True),
        ({"train_size": 4}, {"train_size": 16}, True),  # a whole batch of 4
        ({"train_size": 2}, {"train_size": 16}, False),  # a step of 2 documents
        ({"train_size": 2}, {"train_size": 3}, False),
        ({"seed": 1}, {"seed": 2}, True),
        ({"max_length": 16}, {"max_length": 32}, False),
        ({"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 8}, False),
        ({"learning_rate": 1e-5}, {"learning_rate": 1e-3}, True),  # moves no byte
        ({"dataloader_num_workers": 0}, {"dataloader_num_workers": 2}, False),
        ({"optim": "sgd"}, {"optim": "adamw_torch"}, False),
    ],
)
def test_cells_share_a_pass_if_their_steps_are_alike(one, other, shared):
    assert (two_step_key(cell(**one)) == two_step_key(cell(**other))) is shared


@pytest.mark.parametrize(("train_size", "shared"), [(7, False), (8, True), (9, True)])
def test_a_step_takes_the_documents_of_all_its_batches(train_size, shared):
    twice = {"gradient_accumulation_steps": 2}  # two batches of 4
    keys = {two_step_key(cell(train_size=n, **twice)) for n in (train_size, 16)}
    assert (len(keys) == 1) is shared
