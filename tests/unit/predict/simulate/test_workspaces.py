import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbench.predict.simulate.workspaces import (
    Runtime,
    Step,
    Workspaces,
    column_sum_workspace,
    cublas_workspace_bytes,
    cublaslt_lifetime,
    cublaslt_workspace_bytes,
    efficient_attention_backward_workspace,
    embedding_backward_workspace,
    flash_attention_backward_workspace,
    foreach_norm_workspace,
    layer_norm_backward_workspace,
    uses_cublaslt,
)
from ftbench.predict.trace.events import Kernel

KIB, MIB = 1024, 1024**2
RTX_3060 = Runtime((8, 6), (2, 6), multiprocessors=28, threads_per_multiprocessor=1536)


def sizes(steps):
    """The bytes of what steps allocate, by name, once it is sure that the rest makes sense."""
    live, made = set(), {}
    for step in steps:
        if step.action == "allocate":
            assert step.name not in made
            assert step.nbytes > 0
            live.add(step.name)
            made[step.name] = step.nbytes
        elif step.action == "free":
            live.remove(step.name)
    assert not live
    return made


def test_a_runtime_has_multiprocessors():
    with pytest.raises(ValueError, match="0 multiprocessors"):
        Runtime(multiprocessors=0)
    with pytest.raises(ValueError, match="of 0 threads"):
        Runtime(threads_per_multiprocessor=0)
    assert Runtime(multiprocessors=1, threads_per_multiprocessor=1).multiprocessors == 1


# Matrix products


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


def product(operator="aten::mm", *, bias=False, autograd=False, shape=(64, 768, 768)):
    return Kernel(operator, shape, (int(bias), 4), autograd)


LINEAR = product("aten::addmm", bias=True)
ONE_ROW = product("aten::addmm", bias=True, shape=(1, 768, 768))
BACKWARD = product(autograd=True)
CUBLAS, LT = 8_519_680, 1_048_576


def moves(spaces, *kernels):
    """What kernels do besides their results: (sign, number, bytes), numbered as they are allocated."""
    found, numbers, live = [], itertools.count(), {}
    for kernel in kernels:
        before, after = spaces.of(kernel)
        for step in (*before, *after):
            if step.action == "allocate":
                live[step.name] = (next(numbers), step.nbytes)
                found.append((1, *live[step.name]))
            else:
                found.append((-1, *live.pop(step.name)))
    return found


@pytest.mark.parametrize(
    ("version", "kernels", "expected"),
    [
        # to 2.8: cuBLASLt's comes first, and goes; cuBLAS's stays, one a thread
        (
            (2, 6),
            [LINEAR, LINEAR],
            [(1, 0, LT), (1, 1, CUBLAS), (-1, 0, LT), (1, 2, LT), (-1, 2, LT)],
        ),
        ((2, 6), [product(), BACKWARD, BACKWARD], [(1, 0, CUBLAS), (1, 1, CUBLAS)]),
        ((2, 9), [LINEAR, LINEAR, BACKWARD], [(1, 0, CUBLAS), (1, 1, LT), (1, 2, CUBLAS)]),
        ((2, 9), [product(), LINEAR], [(1, 0, CUBLAS), (1, 1, LT)]),
        ((2, 13), [LINEAR, LINEAR, BACKWARD], [(1, 0, CUBLAS), (1, 1, CUBLAS)]),
        # one document: by cuBLASLt to 2.9
        ((2, 9), [ONE_ROW], [(1, 0, CUBLAS), (1, 1, LT)]),
        ((2, 10), [ONE_ROW], [(1, 0, CUBLAS)]),
    ],
)
def test_workspaces_of_products(version, kernels, expected):
    assert moves(Workspaces(Runtime(torch_version=version)), *kernels) == expected


def test_scratch_is_given_back():
    kernel = Kernel("aten::embedding_dense_backward", (4096, 768, 30522), (4, 8), True)
    made = moves(Workspaces(Runtime()), kernel)
    assert sum(sign for sign, _, _ in made) == 0
    assert max(nbytes for _, _, nbytes in made) == 4505 * 768 * 4


@pytest.mark.parametrize(
    ("operator", "shape", "traits", "made"),
    [
        ("sum", (8192, 768), (4,), {"reduce_buffer": 21 * MIB, "reduce_semaphores": 24}),
        (
            "native_layer_norm_backward",
            (64 * KIB + 1, 32),
            (2,),
            {"dgamma_blocks": 2049 * 32 * 2, "dbeta_blocks": 2049 * 32 * 2},
        ),
        ("_foreach_norm", (), (3, 30522 * 768), {"output_per_tensor": 3 * 358 * 4}),
        (
            "_scaled_dot_product_efficient_attention_backward",
            (2, 12, 130, 140, 64, 60),
            (2,),
            {"delta": 2 * 12 * 130 * 4, "workspace": 72 * 16_400},
        ),
        ("_scaled_dot_product_efficient_attention_backward", (2, 12, 130, 140, 65, 60), (2,), {}),
        (
            "_scaled_dot_product_flash_attention_backward",
            (2, 12, 128, 100, 64, 4),
            (2,),
            {
                "softmax_d": 12_288,
                "dq_accum": 786_432,
                "dk_expanded": 307_200,
                "dv_expanded": 307_200,
            },
        ),
    ],
)
def test_scratch_of_a_kernel_follows_from_its_sizes_and_traits(operator, shape, traits, made):
    runtime = Runtime((8, 6), (2, 13), multiprocessors=28, threads_per_multiprocessor=1536)
    kernel = Kernel(f"aten::{operator}", shape, traits, True)
    assert sizes(Workspaces(runtime).steps(kernel)) == made


def test_an_embedding_s_kernel_has_the_bytes_of_its_elements_and_of_its_indices():
    kernel = Kernel("aten::embedding_dense_backward", (8192, 768, 2), (2, 4), True)
    made = sizes(Workspaces(Runtime()).steps(kernel))
    assert made["partial_to_segment_idx"] == 821 * 4
    assert made["grad_weight_acc"] == 2 * 768 * 4
    assert made["sorted_indices"] == 8192 * 4


def test_scratch_of_a_kernel_depends_on_the_card_and_its_torch():
    old, new = (Workspaces(Runtime(torch_version=version)) for version in ((2, 6), (2, 13)))
    norm = Kernel("aten::native_layer_norm_backward", (64 * KIB + 1, 32), (4,), True)
    assert (old.steps(norm), bool(new.steps(norm))) == ((), True)
    embedding = Kernel("aten::embedding_dense_backward", (8192, 768, 2), (4, 8), True)
    assert "grad_weight_per_segment" in sizes(old.steps(embedding))
    assert "grad_weight_per_segment" not in sizes(new.steps(embedding))
    halves = Kernel("aten::sum", (2**20, 512), (2,), True)  # 1 GiB; of floats it would be 2
    assert new.steps(halves) != ()
    heads = Kernel(
        "aten::_scaled_dot_product_flash_attention_backward", (1, 4, 128, 10, 64, 2), (4,), True
    )
    assert sizes(new.steps(heads))["dk_expanded"] == 10 * 4 * 64 * 4


def test_a_result_is_allocated_after_some_of_the_scratch_and_before_the_rest():
    spaces = Workspaces(Runtime())
    before, after = spaces.of(Kernel("aten::_foreach_norm", (), (1, 65_536), False))
    assert before == (Step("allocate", "output_per_tensor", 4),)
    assert after == (Step("free", "output_per_tensor"),)
    before, after = spaces.of(Kernel("aten::mm", (2, 2, 2), (0, 4), False))
    assert (before, [step.name for step in after]) == ((), ["cublas"])


def test_other_kernels_allocate_nothing():
    assert Workspaces(Runtime()).steps(Kernel("aten::relu", (4,), (4,), False)) == ()


# Embeddings


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


# Reductions


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


# Attention


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
