import pytest

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime
from ftbench.prediction.simulate.workspaces.flash_attention import (
    flash_backward_workspace,
    flash_forward_workspace,
)
from ftbench.prediction.simulate.workspaces.workspaces import Workspaces
from ftbench.prediction.trace.events import Kernel
from tests.unit.prediction.simulate.workspaces.scratch import sizes

A100 = 108


@pytest.mark.parametrize(
    ("batch", "heads", "queries", "keys", "width", "splits"),
    [
        (8, 12, 512, 512, 64, 1),  # 768 blocks on 216
        (1, 12, 64, 64, 64, 1),  # one block of keys
        (1, 1, 64, 2048, 64, 8),  # eight blocks of keys, a split each
        (1, 12, 512, 512, 64, 2),  # 96 blocks: 192 are 89 % of 216, 96 are 44 %
        (1, 173, 64, 512, 64, 1),  # 80 % of 216
        (1, 172, 64, 512, 64, 1),  # two waves of 344 blocks are no fuller than one of 172
        (1, 1, 64, 2048, 128, 16),
        (1, 1, 64, 2048, 256, 32),
    ],
)
def test_keys_are_split_if_the_card_is_not_busy(batch, heads, queries, keys, width, splits):
    steps = flash_forward_workspace(batch, heads, queries, keys, width, multiprocessors=A100)
    rows = splits * batch * heads * queries * 4
    made = {} if splits == 1 else {"softmax_lse_accum": rows, "out_accum": rows * width}
    assert sizes(steps) == made


def test_the_head_size_of_partial_results_is_rounded():
    made = sizes(flash_forward_workspace(1, 1, 64, 2048, 80, multiprocessors=A100))
    assert made["out_accum"] == 96 * made["softmax_lse_accum"]


def test_the_backward_pass_of_one_length():
    steps = flash_backward_workspace(
        2, 12, 130, 130, 80, key_heads=12, element_bytes=2, varying=False
    )
    assert sizes(steps) == {"softmax_d": 2 * 12 * 256 * 4, "dq_accum": 2 * 256 * 12 * 96 * 4}


def test_the_backward_pass_of_various_lengths():
    steps = flash_backward_workspace(
        3, 12, 100, 100, 80, key_heads=4, element_bytes=2, varying=True
    )
    rows = 100 + 3 * 128
    assert sizes(steps) == {
        "softmax_d": rows * 12 * 4,
        "dq_accum": rows * 12 * 96 * 4,
        "dk_expanded": 100 * 12 * 80 * 2,
        "dv_expanded": 100 * 12 * 80 * 2,
    }


def test_kernels_lead_to_them():
    spaces = Workspaces(Runtime(multiprocessors=A100))
    forward = Kernel("ftbench::flash_attention", (1, 12, 512, 512, 64), (), False)
    assert sizes(spaces.steps(forward))["softmax_lse_accum"] == 2 * 12 * 512 * 4
    for varying, rows in ((1, 64 + 2 * 128), (0, 2 * 128)):
        backward = Kernel(
            "ftbench::flash_attention_backward", (2, 4, 64, 64, 32, 4), (2, varying), True
        )
        assert sizes(spaces.steps(backward))["dq_accum"] == rows * 4 * 32 * 4
