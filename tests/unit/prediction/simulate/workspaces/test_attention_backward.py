import pytest

from ftbench.prediction.simulate.workspaces.attention_backward import (
    efficient_attention_backward_workspace,
    flash_attention_backward_workspace,
)
from tests.unit.prediction.simulate.workspaces.scratch import sizes


def test_efficient_attention_backward():
    # 3 tiles of 64 for 130 queries; a tile has 16,400 bytes
    half = efficient_attention_backward_workspace(2, 12, 130, 64, element_bytes=2)
    assert sizes(half) == {"delta": 2 * 12 * 130 * 4, "workspace": 72 * 16_400}
    full = efficient_attention_backward_workspace(2, 12, 130, 64, element_bytes=4)
    assert sizes(full) == {
        "products": 2 * 12 * 130 * 64 * 4,
        "sums": 12_480,
        "delta": 12_480,
        "workspace": 1_180_800,
    }


def test_the_order_of_efficient_attention_s_scratch():
    full = efficient_attention_backward_workspace(1, 1, 64, 64, element_bytes=4)
    assert [(step.action, step.name) for step in full] == [
        ("allocate", "products"),
        ("allocate", "sums"),
        ("allocate", "delta"),
        ("free", "sums"),
        ("free", "products"),
        ("allocate", "workspace"),
        ("free", "delta"),
        ("free", "workspace"),
    ]
    assert sizes(full)["workspace"] == 16_400  # one tile


def test_efficient_attention_backward_of_large_heads_is_unknown():
    assert efficient_attention_backward_workspace(2, 12, 130, 65, element_bytes=2) is None
    assert efficient_attention_backward_workspace(2, 12, 130, 80, element_bytes=2) is None


def test_flash_attention_backward():
    steps = flash_attention_backward_workspace(2, 12, 130, 130, 80)
    assert sizes(steps) == {"softmax_d": 2 * 12 * 256 * 4, "dq_accum": 2 * 256 * 12 * 96 * 4}


def test_flash_attention_backward_with_shared_keys():
    steps = flash_attention_backward_workspace(2, 12, 128, 100, 64, key_heads=4)
    assert sizes(steps) == {
        "softmax_d": 12_288,
        "dq_accum": 786_432,
        "dk_expanded": 2 * 100 * 12 * 64 * 2,
        "dv_expanded": 2 * 100 * 12 * 64 * 2,
    }
    assert [step.name for step in steps][-4:] == [
        "dv_expanded",
        "dk_expanded",
        "dq_accum",
        "softmax_d",
    ]


@pytest.mark.parametrize(("head_size", "rounded"), [(32, 32), (33, 64), (128, 128), (129, 192)])
def test_flash_attention_rounds_head_sizes(head_size, rounded):
    made = sizes(flash_attention_backward_workspace(1, 1, 129, 64, head_size, key_heads=1))
    assert made == {"softmax_d": 256 * 4, "dq_accum": 256 * rounded * 4}


def test_expanded_keys_have_the_bytes_of_their_elements():
    made = sizes(
        flash_attention_backward_workspace(1, 4, 128, 10, 64, key_heads=2, element_bytes=4)
    )
    assert made["dk_expanded"] == made["dv_expanded"] == 10 * 4 * 64 * 4
