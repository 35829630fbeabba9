"""What stands in for CUDA's operators: which kernel is taken, what it saves, and that it goes again."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from ftbench.base.errors import PredictionError
from ftbench.predict.trace.events import Kind
from ftbench.predict.trace.operators import (
    autocast_policies,
    choose_attention,
    cuda_operators,
    results_on_card,
)
from ftbench.predict.trace.tracer import Target, trace

aten = torch.ops.aten
VOLTA, TURING, AMPERE, RTX, HOPPER, BLACKWELL = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


def allocations(run, *, operator, target=None):
    """Return the bytes of what an operator allocates while `run(device)` is traced."""

    def factory(device):
        return lambda: run(device)

    events = trace(factory, steps=1, target=target)
    return [
        nbytes
        for (kind, _, site), nbytes in zip(events.rows(), events.nbytes.tolist(), strict=True)
        if kind == Kind.ALLOCATE and events.sites[site].operator == operator
    ]


# Autocast's lists.


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
        pytest.raises(PredictionError, match="autocast refuses"),
    ):
        functional.binary_cross_entropy(torch.ones(4), torch.ones(4))


# The choice of attention's kernel.


def chosen(
    dtype=HALF,
    capability=AMPERE,
    *,
    width=64,
    heads=(4, 4),
    lengths=(40, 40),
    mask=None,
    dropout=0.0,
    causal=False,
    gqa=False,
    grad=False,
    kernel=None,
):
    def tensor(heads, length):
        options = {"dtype": dtype, "device": "meta", "requires_grad": grad}
        return torch.empty(2, heads, length, width, **options)

    query, key = tensor(heads[0], lengths[0]), tensor(heads[1], lengths[1])
    return choose_attention(
        query,
        key,
        torch.empty_like(key),
        mask,
        dropout_p=dropout,
        is_causal=causal,
        enable_gqa=gqa,
        kernel=kernel,
        capability=capability,
    )


MASK = torch.ones(2, 1, 40, 40, dtype=torch.bool, device="meta")


@pytest.mark.parametrize(
    ("kernel", "call"),
    [
        # By type and card.
        ("flash", {"dtype": HALF}),
        ("flash", {"dtype": BFLOAT}),
        ("efficient", {"dtype": FLOAT}),
        ("math", {"dtype": torch.float64}),
        ("efficient", {"dtype": HALF, "capability": TURING}),
        ("efficient", {"dtype": FLOAT, "capability": VOLTA}),
        ("math", {"dtype": BFLOAT, "capability": TURING}),
        ("flash", {"capability": BLACKWELL}),
        # cuDNN first on Hopper: not in float32, nor with a dropout that is no sixteenth.
        ("cudnn", {"capability": HOPPER}),
        ("cudnn", {"capability": (10, 0), "mask": MASK}),
        ("efficient", {"capability": HOPPER, "dtype": FLOAT}),
        ("flash", {"capability": HOPPER, "dropout": 0.1}),
        ("cudnn", {"capability": HOPPER, "dropout": 0.125}),
        ("flash", {"capability": HOPPER, "width": 192}),
        # By mask.
        ("efficient", {"mask": MASK}),
        ("efficient", {"mask": MASK, "dtype": FLOAT}),
        ("math", {"mask": MASK.transpose(-1, -2)}),
        ("flash", {"causal": True}),
        ("efficient", {"causal": True, "lengths": (1, 40)}),
        # By head size: 16 bytes a row where tensor cores are used.
        ("flash", {"width": 20}),
        ("math", {"width": 20, "mask": MASK}),
        ("efficient", {"width": 20, "dtype": FLOAT}),
        ("math", {"width": 21, "dtype": FLOAT}),
        ("efficient", {"width": 21, "dtype": FLOAT, "capability": TURING}),
        ("flash", {"width": 256}),
        ("efficient", {"width": 264}),
        ("efficient", {"width": 208, "capability": RTX, "grad": True}),
        ("flash", {"width": 208, "capability": RTX}),
        ("flash", {"width": 256, "capability": RTX, "grad": True}),
        ("efficient", {"width": 256, "capability": RTX, "grad": True, "dropout": 0.1}),
        # By heads: only memory-efficient attention cannot group, and it need not where they are equal.
        ("flash", {"heads": (4, 2), "gqa": True}),
        ("math", {"heads": (4, 2), "gqa": True, "dtype": FLOAT}),
        ("efficient", {"heads": (4, 4), "gqa": True, "dtype": FLOAT}),
        ("math", {"heads": (4, 2)}),
        ("math", {"heads": (4, 3), "gqa": True}),
        # By name: the kernel asked for where it can, else the next.
        ("math", {"kernel": "math"}),
        ("efficient", {"kernel": "efficient"}),
        ("efficient", {"kernel": "flash", "mask": MASK}),
        ("math", {"kernel": "flash", "dtype": torch.float64}),
        ("cudnn", {"kernel": "cudnn"}),
    ],
    ids=str,
)
def test_attention_kernel_that_cuda_takes(kernel, call):
    assert chosen(**call) == kernel


def test_cudnn_by_name_is_refused_where_it_cannot_run():
    with pytest.raises(PredictionError, match="cudnn"):
        chosen(FLOAT, kernel="cudnn")


# What attention and dropout allocate.


@pytest.mark.parametrize(
    ("shape", "expanded", "padded"),
    [
        ((2, 1, 40, 40), None, None),
        ((2, 1, 44, 44), None, (2, 1, 44, 48)),
        ((2, 1, 1, 44), None, (2, 1, 1, 48)),
        ((2, 1, 1, 40), (2, 1, 40, 40), None),  # one row for all queries: its stride is 0
        ((44, 44), None, (44, 48)),
    ],
)
def test_mask_of_efficient_attention_has_aligned_rows(shape, expanded, padded):
    def run(device):
        length = shape[-1]
        query = torch.ones(2, 4, length, 16, device=device)
        mask = torch.zeros(shape, device=device)
        mask = mask.expand(expanded) if expanded else mask
        return functional.scaled_dot_product_attention(query, query, query, mask)

    found = allocations(run, operator="aten::constant_pad_nd")
    assert found == ([4 * torch.Size(padded).numel()] if padded else [])


def test_heads_of_flash_attention_are_padded():
    def run(device):
        query = torch.ones(2, 4, 40, 20, device=device, dtype=BFLOAT)
        return functional.scaled_dot_product_attention(query, query, query)

    assert allocations(run, operator="aten::constant_pad_nd") == 3 * [2 * 2 * 4 * 40 * 24]


def test_dropout_keeps_one_byte_an_element():
    def run(device):
        return functional.dropout(torch.ones(10, 30, device=device), 0.1)

    assert allocations(run, operator="aten::native_dropout") == [1200, 300]
    assert allocations(run, operator="aten::native_dropout", target=Target(device="cpu")) == []


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_dropout_of_nothing_or_all_is_not_fused(probability):
    def run(device):
        return functional.dropout(torch.ones(10, 30, device=device), probability)

    assert allocations(run, operator="aten::native_dropout") == []


@pytest.mark.parametrize(("dtype", "copies"), [(HALF, 0), (BFLOAT, 1), (FLOAT, 0)])
def test_softmax_of_float16_into_float32_is_one_kernel(dtype, copies):
    def run(device):
        scores = torch.ones(10, 30, device=device, dtype=dtype, requires_grad=True)
        probabilities = functional.softmax(scores, dim=-1, dtype=FLOAT)
        probabilities.sum().backward()
        assert scores.grad.dtype is dtype
        return probabilities

    assert allocations(run, operator="aten::_softmax") == [1200]
    assert len(allocations(run, operator="aten::_to_copy")) == 2 * copies  # forward and backward


def test_layer_norm_keeps_its_moments_in_float32():
    def run(device):
        return torch.layer_norm(torch.ones(10, 30, device=device, dtype=BFLOAT), (30,))

    assert allocations(run, operator="aten::native_layer_norm") == [600, 40, 40]
    other = (torch.ones(2, dtype=BFLOAT),)
    assert results_on_card(aten.add.Tensor, other) is other


def test_rms_norm_is_one_operator():
    def run(device):
        return torch.rms_norm(torch.ones(10, 30, device=device, dtype=BFLOAT), (30,))

    assert allocations(run, operator="aten::_fused_rms_norm") == [600, 40]


def test_number_assigned_to_a_part_of_a_tensor_comes_from_the_host():
    def run(device):
        tokens = torch.ones(10, 30, device=device)
        tokens[:, 0] = 3
        return tokens

    assert allocations(run, operator="aten::scalar_tensor") == []
    assert "__setitem__" not in vars(torch.Tensor)


# Tensors with data.


def values():
    """Return what operators that a trace replaces make of tensors with data, gradients included."""
    torch.manual_seed(0)
    x = torch.rand(2, 4, 12, 16, requires_grad=True)
    outputs = [
        functional.dropout(x, 0.5),
        functional.dropout(x, 0.5, training=False),
        x.softmax(-1),
        x.half().softmax(-1, dtype=FLOAT),
        x.log_softmax(-1, dtype=torch.float64),
        functional.scaled_dot_product_attention(x, x, x, is_causal=True),
        functional.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True),
        torch.rms_norm(x, (16,), torch.full((16,), 2.0)),
        torch.layer_norm(x.bfloat16(), (16,)),
    ]
    torch.stack([output.float().pow(2).sum() for output in outputs]).sum().backward()
    return [*outputs, x.grad]


def test_tensors_with_data_keep_their_operators_during_a_trace():
    before = values()
    with cuda_operators("efficient", AMPERE):
        during = values()
    for one, other in zip(before, during, strict=True):
        torch.testing.assert_close(other, one)


def test_operators_are_as_before_after_a_trace():
    def dispatch():
        names = [
            name for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")
        ]
        return {name: torch._C._dispatch_dump(name) for name in names}

    def run(device):
        return functional.dropout(torch.ones(10, 30, device=device), 0.1)

    before, expected = dispatch(), values()
    with torch.autocast("cpu", dtype=BFLOAT):
        half = torch.ones(4, 4).bfloat16().softmax(-1).dtype
    trace(lambda device: lambda: run(device))
    assert dispatch() == before
    assert all(itertools.starmap(torch.equal, zip(values(), expected, strict=True)))
    with torch.autocast("cpu", dtype=BFLOAT):
        assert torch.ones(4, 4).bfloat16().softmax(-1).dtype is half


def test_scaled_gradients_are_finite():
    """GradScaler asks whether one is infinite; a step that it left out would never make Adam's state."""

    def factory(device):
        layer = torch.nn.Linear(10, 3).to(device)
        optimizer, scaler = torch.optim.AdamW(layer.parameters()), torch.amp.GradScaler("cpu")

        def step():
            scaler.scale(layer(torch.ones(2, 10, device=device)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        return step

    assert "optimizer state" in trace(factory, steps=1).traced_roles.values()
