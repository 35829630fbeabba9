import pytest

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime


def test_a_runtime_has_multiprocessors():
    with pytest.raises(ValueError, match="0 multiprocessors"):
        Runtime(multiprocessors=0)
    with pytest.raises(ValueError, match="of 0 threads"):
        Runtime(threads_per_multiprocessor=0)
    assert Runtime(multiprocessors=1, threads_per_multiprocessor=1).multiprocessors == 1
