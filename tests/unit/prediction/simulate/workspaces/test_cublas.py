import pytest

from ftbench.prediction.simulate.workspaces.cublas import (
    cublas_workspace_bytes,
    cublaslt_lifetime,
    cublaslt_workspace_bytes,
    uses_cublaslt,
)


@pytest.mark.parametrize(
    ("capability", "version", "nbytes"),
    [
        ((7, 5), (2, 6), 8_519_680),
        ((8, 6), (2, 13), 8_519_680),
        ((9, 0), (2, 6), 33_554_432),
        ((9, 0), (2, 13), 33_554_432),
        ((10, 0), (2, 10), 8_519_680),
        ((10, 0), (2, 12), 33_554_432),
        ((12, 0), (2, 13), 33_554_432),
        ((9, 1), (2, 11), 8_519_680),
        ((9, 1), (2, 12), 33_554_432),
        ((11, 0), (2, 13), 8_519_680),
    ],
)
def test_cublas_workspace(capability, version, nbytes):
    assert cublas_workspace_bytes(capability, version) == nbytes


@pytest.mark.parametrize(
    ("version", "lifetime", "nbytes"),
    [
        ((2, 6), "call", 1_048_576),
        ((2, 8), "call", 1_048_576),
        ((2, 9), "handle", 1_048_576),
        ((2, 11), "handle", 1_048_576),
        ((2, 12), "shared", 0),
        ((2, 13), "shared", 0),
    ],
)
def test_cublaslt_workspace(version, lifetime, nbytes):
    assert cublaslt_lifetime(version) == lifetime
    assert {cublaslt_workspace_bytes(card, version) for card in ((8, 0), (9, 0))} == {nbytes}


@pytest.mark.parametrize(
    ("shape", "vector_bias", "version", "used"),
    [
        ((64, 768, 768), True, (2, 6), True),
        ((64, 768, 768), False, (2, 6), False),
        ((64, 768, 1), True, (2, 6), False),
        ((64, 1, 768), True, (2, 6), False),
        ((1, 768, 768), True, (2, 6), True),
        ((1, 768, 768), True, (2, 10), False),
        ((2, 768, 2), True, (2, 10), True),
        ((64, 2, 768), True, (2, 6), True),
        ((1, 768, 768), True, (2, 9), True),
    ],
)
def test_uses_cublaslt(shape, vector_bias, version, used):
    assert uses_cublaslt(*shape, vector_bias=vector_bias, torch_version=version) is used
