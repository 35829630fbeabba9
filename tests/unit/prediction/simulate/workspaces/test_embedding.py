import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime, Step
from ftbench.prediction.simulate.workspaces.embedding import embedding_backward_workspace
from tests.unit.prediction.simulate.workspaces.scratch import sizes

RTX_3060 = Runtime((8, 6), (2, 6), multiprocessors=28, threads_per_multiprocessor=1536)


def test_few_indices_need_no_workspace():
    assert embedding_backward_workspace(3072, 768, 30522) == ()
    assert embedding_backward_workspace(3073, 768, 30522) != ()


def test_embedding_backward():
    steps = embedding_backward_workspace(4096, 768, 30522, runtime=RTX_3060)
    assert sizes(steps) == {
        "sorted_indices": 32_768,
        "orig_indices": 32_768,
        "range": 32_768,
        # 8 passes of 256 bins, 2 tiles of 1 KiB, two buffers, 32 bytes of counters in 256
        "sort_storage": 16_384 + 2_048 + 65_536 + 256,
        "segment_offsets": 32_768,
        "num_of_segments": 8,
        "unique_keys": 32_768,
        "unique_storage": 832,
        "partials_per_segment": 32_768,  # 4096 distinct tokens at most
        "partials_per_segment_offset": 32_768,
        "scan_storage": 832,
        "num_of_partial_segments": 8,
        "partial_segment_offset": 36_040,  # 409 + 4096
        "grad_weight_per_segment": 13_839_360,  # 4505 x 768 floats
    }
    assert [step.name for step in steps].index("grad_weight") == 6  # what was sorted lives by then
    assert Step("output", "grad_weight") in steps


def test_the_order_of_an_embedding_s_scratch():
    """As the two functions of torch have it: what is sorted first, and all that lives to the end last."""
    steps = embedding_backward_workspace(4096, 768, 30522)
    made = [step.name for step in steps if step.action != "free"]
    assert made == [
        "sorted_indices",
        "orig_indices",
        "range",
        "sort_storage",
        "grad_weight",
        "segment_offsets",
        "num_of_segments",
        "unique_keys",
        "unique_storage",
        "partials_per_segment",
        "partials_per_segment_offset",
        "scan_storage",
        "num_of_partial_segments",
        "partial_segment_offset",
        "grad_weight_per_segment",
    ]
    freed = [step.name for step in steps if step.action == "free"]
    assert freed[:5] == ["sort_storage", "range", "unique_storage", "unique_keys", "scan_storage"]
    assert freed[5:] == [
        "grad_weight_per_segment",
        "partial_segment_offset",
        "num_of_partial_segments",
        "partials_per_segment_offset",
        "partials_per_segment",
        "num_of_segments",
        "segment_offsets",
        "orig_indices",
        "sorted_indices",
    ]


def test_an_embedding_of_narrow_indices():
    made = sizes(embedding_backward_workspace(4096, 768, 100, runtime=RTX_3060, index_bytes=4))
    assert made["range"] == made["unique_keys"] == made["segment_offsets"] == 16_384
    # 4 passes of 256 bins, 2 tiles of 1 KiB, two buffers, 16 bytes of counters in 256
    assert made["sort_storage"] == 8_192 + 2_048 + 32_768 + 256
    assert made["partials_per_segment"] == made["partials_per_segment_offset"] == 400
    assert made["partial_segment_offset"] == (409 + 100) * 4
    assert made["scan_storage"] == 16 + 768
    assert made["grad_weight_per_segment"] == 509 * 768 * 4


def test_storage_of_sorts_and_scans_is_in_whole_tiles():
    one, two = (
        sizes(embedding_backward_workspace(count, 768, count, runtime=RTX_3060))
        for count in (3840, 3841)
    )
    # A tile more is 1 KiB; a buffer of 3840 keys of 8 bytes is 120 pieces of 256 bytes, of 3841 it is 121.
    assert two["sort_storage"] - one["sort_storage"] == 1024 + 2 * 256
    assert two["scan_storage"] == one["scan_storage"] == 4 * 16 + 768
    more = sizes(embedding_backward_workspace(4097, 768, 4097, runtime=RTX_3060))
    assert more["unique_storage"] == more["scan_storage"] == 5 * 16 + 768


@pytest.mark.parametrize("element_bytes", [2, 4, 8])
def test_partial_sums_of_an_embedding_are_floats_at_least(element_bytes):
    steps = embedding_backward_workspace(4096, 768, 30522, element_bytes=element_bytes)
    assert sizes(steps)["grad_weight_per_segment"] == 4505 * 768 * max(element_bytes, 4)


@pytest.mark.parametrize(
    ("shape", "runtime", "fused"),
    [
        # A block is 768 wide, so there is one for each distinct token; a card takes 4 for each multiprocessor.
        ((4096, 768, 3), Runtime(multiprocessors=1), True),
        ((4096, 768, 4), Runtime(multiprocessors=1), False),
        # More partial sums than four for each block: 409 + 136 > 544, but 409 + 137 < 548.
        ((4096, 768, 136), Runtime(), True),
        ((4096, 768, 137), Runtime(), False),
        ((4110, 768, 137), Runtime(), False),  # 411 + 137 = 548
        ((4120, 768, 137), Runtime(), True),
        # 1500 columns are 47 warps, so 1504 threads of which a block has 1024.
        ((4096, 1500, 83), Runtime(), True),  # 122 blocks, 492 partial sums
        ((4096, 1500, 84), Runtime(), False),  # 124 blocks, 493 partial sums
        ((4096, 768, 3), Runtime(torch_version=(2, 11)), True),
        ((4096, 768, 3), Runtime(torch_version=(2, 10)), False),
    ],
)
def test_few_and_large_segments_are_added_up_at_once(shape, runtime, fused):
    made = sizes(embedding_backward_workspace(*shape, runtime=runtime))
    assert ("partial_to_segment_idx" in made) is fused
    assert ("grad_weight_per_segment" in made) is not fused


@pytest.mark.parametrize(
    ("version", "element_bytes", "expected"),
    [
        ((2, 6), 4, {"grad_weight_per_segment": 821 * 768 * 4}),
        ((2, 13), 4, {"partial_to_segment_idx": 821 * 8}),
        ((2, 13), 2, {"partial_to_segment_idx": 821 * 8, "grad_weight_acc": 2 * 768 * 4}),
    ],
)
def test_an_embedding_of_few_rows(version, element_bytes, expected):
    # token types: 8192 indices, 2 rows, 819 + 2 partial sums; 2 blocks would add them up
    made = sizes(
        embedding_backward_workspace(
            8192, 768, 2, runtime=Runtime(torch_version=version), element_bytes=element_bytes
        )
    )
    names = ("grad_weight_per_segment", "partial_to_segment_idx", "grad_weight_acc")
    assert {name: made[name] for name in names if name in made} == expected


@given(
    st.integers(1, 100_000),
    st.integers(1, 4096),
    st.integers(1, 100_000),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([4, 8]),
    st.sampled_from([(2, 6), (2, 13)]),
)
def test_an_embedding_leaves_nothing(indices, width, rows, element_bytes, index_bytes, version):
    sizes(
        embedding_backward_workspace(
            indices,
            width,
            rows,
            runtime=Runtime(torch_version=version),
            element_bytes=element_bytes,
            index_bytes=index_bytes,
        )
    )
