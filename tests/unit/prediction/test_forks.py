"""Jobs in processes that are forked from this one."""

from contextlib import ExitStack

import torch

from ftbench.prediction.forks import runner


def threads(_):
    return torch.get_num_threads()


def test_a_forked_process_has_one_thread():
    """OpenMP's threads do not survive a fork: work of two threads would wait for ever for the second."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ExitStack() as stack:
            assert runner(stack, 2)(threads, range(4)) == [1, 1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
