"""The kernel of attention that a card takes, and what it allocates."""

import pytest
import torch
from torch.nn import functional

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.attention import choose_attention
from tests.unit.prediction.modules import allocations

aten = torch.ops.aten
VOLTA, TURING, AMPERE, RTX, HOPPER, BLACKWELL = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


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
