import pytest

from ftbench.execute.jobs import Job
from tests.factories import cell


@pytest.mark.parametrize(
    ("settings", "examples"),
    [
        ({"num_train_epochs": 3}, 3 * 48 + 4 * 8),  # an evaluation per epoch, and one at the end
        ({"max_steps": 2, "eval_strategy": "no"}, 3 * 8 + 8),
        ({"num_train_epochs": 1, "eval_strategy": "no"}, 3 * 16 + 8),
    ],
)
def test_the_work_of_a_job_is_that_of_its_schedule(settings, examples):
    """A cell of two steps is no more work than these, whatever its number of epochs."""
    assert Job(cell(**settings), 0).work == examples * 16
