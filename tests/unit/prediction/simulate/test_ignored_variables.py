"""What the environment says of the allocator: no prediction follows it, and each says so."""

import pytest

from ftbench.prediction.simulate.ignored_variables import ignored_variables


@pytest.mark.parametrize(
    "name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG"]
)
def test_variables_that_are_set_are_named(name):
    assert ignored_variables({name: ":4096:8"}).startswith(f"{name} is set and ignored")


def test_variables_that_are_not_set_are_not_named():
    assert ignored_variables({"PATH": "/bin", "PYTORCH_ALLOC_CONF": ""}) == ""
