import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime
from ftbench.prediction.simulate.workspaces.reductions import (
    column_sum_workspace,
    foreach_norm_workspace,
    layer_norm_backward_workspace,
)
from tests.unit.prediction.simulate.workspaces.scratch import sizes

KIB, MIB = 1024, 1024**2
RTX_3060 = Runtime((8, 6), (2, 6), multiprocessors=28, threads_per_multiprocessor=1536)


@pytest.mark.parametrize(
    ("rows", "columns", "shares", "threads", "grid"),
    [
        # 4 columns a thread, blocks of 32 x 4 threads: 6 of them across 768 columns. A multiprocessor
        # has room for 12 blocks, the card for 336: 56 for each of the 6, as 2048 rows a thread last.
        (8192, 768, 56, 32 * 4, 6),
        # 320 rows a thread: 16 at least for each share
        (1280, 768, 20, 32 * 4, 6),
        (1280, 3072, 14, 32 * 4, 24),
        # 2 columns a thread, so blocks of 32 x 8; 6 blocks a multiprocessor, 168 in all
        (8192, 770, 13, 32 * 2, 13),
        # 1 column a thread, blocks of 32 x 16; 3 blocks a multiprocessor, 84 in all
        (8192, 769, 4, 32, 25),
        (1024, 768, 16, 32 * 4, 6),  # 256 rows a thread are just enough
        # As many blocks as the card has room for: none is shared but by rows, 256 a share.
        (8192, 43_008, 8, 32 * 4, 336),
        (1028, 43_008, 2, 32 * 4, 336),
        # few columns: 2 threads across and 64 down
        (65536, 8, 64, 2 * 4, 1),
    ],
)
def test_column_sums(rows, columns, shares, threads, grid):
    assert sizes(column_sum_workspace(rows, columns, RTX_3060)) == {
        "reduce_buffer": 4 * columns * shares * threads,
        "reduce_semaphores": 4 * grid,
    }


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (1, 768),
        (63, 768),  # a warp each
        (1020, 768),  # 255 rows a thread
        (8192, 1),
        (8192, 50_257 * 4),  # columns enough for the card
        (8192, 43_136),  # one block more than it has room for
        (1024, 43_008),  # one share
        (2**20, 512),  # 2 GiB
        (2**20, 1024),  # 4 GiB
    ],
)
def test_column_sums_without_workspace(rows, columns):
    assert column_sum_workspace(rows, columns, RTX_3060) == ()


def test_a_column_sum_of_halves_may_have_twice_the_rows():
    assert column_sum_workspace(2**20, 511, RTX_3060) != ()  # 4 MiB less than 2 GiB of floats
    assert column_sum_workspace(2**20, 512, RTX_3060, element_bytes=2) != ()


def test_what_a_column_sum_makes_last_goes_first():
    steps = column_sum_workspace(8192, 768, RTX_3060)
    assert [step.name for step in steps if step.action == "free"] == [
        "reduce_semaphores",
        "reduce_buffer",
    ]


def test_the_figure_in_the_docstring():
    assert sizes(column_sum_workspace(8192, 768, RTX_3060))["reduce_buffer"] == 21 * MIB


@given(st.integers(1, 2**20), st.integers(1, 2**16))
def test_column_sums_leave_nothing(rows, columns):
    sizes(column_sum_workspace(rows, columns))


@pytest.mark.parametrize(
    ("rows", "version", "expected"),
    [
        (64 * KIB, (2, 13), {}),
        (64 * KIB + 1, (2, 6), {}),
        # 2049 blocks of 32 rows, but 32 Ki blocks in all and 24 across: 1365
        (64 * KIB + 1, (2, 13), {"dgamma_blocks": 4_193_280, "dbeta_blocks": 4_193_280}),
    ],
)
def test_layer_norm_backward(rows, version, expected):
    runtime = Runtime(torch_version=version)
    assert sizes(layer_norm_backward_workspace(rows, 768, runtime)) == expected


@pytest.mark.parametrize(("version", "made"), [((2, 7), False), ((2, 8), True)])
def test_layer_norm_backward_by_version(version, made):
    steps = layer_norm_backward_workspace(64 * KIB + 1, 33, Runtime(torch_version=version))
    # 2 warps wide, so up to 16 Ki blocks of 32 rows: 2049 hold all of them
    expected = {"dgamma_blocks": 2049 * 33 * 4, "dbeta_blocks": 2049 * 33 * 4}
    assert sizes(steps) == (expected if made else {})
    assert [step.name for step in steps[2:]] == (["dbeta_blocks", "dgamma_blocks"] if made else [])


def test_blocks_of_a_layer_norm_are_shared_by_the_warps_across():
    # 33 warps across, so 32 Ki / 33 = 992 blocks down
    found = sizes(layer_norm_backward_workspace(64 * KIB + 1, 1056, Runtime()))
    assert found["dgamma_blocks"] == 992 * 1056 * 4


def test_layer_norm_backward_of_wide_rows():
    assert layer_norm_backward_workspace(100_000, 1728, Runtime()) == ()
    assert layer_norm_backward_workspace(100_000, 1727, Runtime()) != ()


def test_foreach_norm():
    # the embedding, 30522 x 768, is 358 chunks; each of the three has room for as many
    assert sizes(foreach_norm_workspace([30522 * 768, 768, 768 * 768])) == {
        "output_per_tensor": 3 * 358 * 4
    }
    assert foreach_norm_workspace([]) == ()
    assert sizes(foreach_norm_workspace([65_536])) == {"output_per_tensor": 4}
    assert sizes(foreach_norm_workspace([65_537, 1])) == {"output_per_tensor": 16}
