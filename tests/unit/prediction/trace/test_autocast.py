"""Autocast as CUDA has it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.autocast import autocast_policies
from ftbench.prediction.trace.operators import cuda_operators

aten = torch.ops.aten
VOLTA, TURING, AMPERE, RTX, HOPPER, BLACKWELL = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


def test_autocast_knows_the_operators_that_torch_knows_on_cuda():
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")]
    torchs = {name[6:] for name in names if has_kernel(name, "AutocastCUDA")}
    assert set(autocast_policies()) == torchs


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [
        (lambda x: x @ x, HALF),
        (lambda x: torch.einsum("ij,jk->ik", x, x), HALF),
        (lambda x: x.half().softmax(-1), FLOAT),
        (lambda x: x.half().sum(), FLOAT),
        (lambda x: x.half().sum(dtype=HALF), HALF),
        (lambda x: x.half().pow(2), FLOAT),
        (lambda x: x.half().norm(), FLOAT),
        (lambda x: torch.norm(x.half(), dim=1), FLOAT),
        (lambda x: torch.layer_norm(x.half(), (4,)), FLOAT),
        (lambda x: torch.addcmul(x, x.half(), x.half()), FLOAT),
        (lambda x: torch.addcmul(x.half(), x.half(), x.half()), HALF),
        (lambda x: torch.cat([x.half(), x.half()]), HALF),
        (lambda x: functional.cross_entropy(x.half(), torch.zeros(4, dtype=torch.long)), FLOAT),
        (lambda x: x.double().exp(), torch.float64),
        (lambda x: x.long().cumsum(0), torch.long),
    ],
)
def test_autocast_results_have_the_types_of_cuda(operation, dtype):
    with cuda_operators(None, AMPERE), FakeTensorMode(), torch.autocast("cpu", dtype=HALF):
        assert operation(torch.ones(4, 4)).dtype is dtype


def test_autocast_refuses_what_cuda_refuses():
    with (
        cuda_operators(None, AMPERE),
        FakeTensorMode(),
        torch.autocast("cpu", dtype=HALF),
        pytest.raises(PredictionError, match="autocast rejects"),
    ):
        functional.binary_cross_entropy(torch.ones(4), torch.ones(4))
