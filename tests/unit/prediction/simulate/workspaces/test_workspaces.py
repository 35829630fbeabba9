import itertools

import pytest

from ftbench.prediction.simulate.workspaces.allocator_steps import Runtime, Step
from ftbench.prediction.simulate.workspaces.workspaces import Workspaces
from ftbench.prediction.trace.events import Kernel
from tests.unit.prediction.simulate.workspaces.scratch import sizes

KIB, MIB = 1024, 1024**2


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
        # copies of matrices live as long as the product, and lie below a first workspace
        (
            (2, 13),
            [product(shape=(2, 3, 5, 6, 15)), product(shape=(2, 3, 5, 0, 15))],
            [
                (1, 0, 24),
                (1, 1, 60),
                (1, 2, CUBLAS),
                (-1, 0, 24),
                (-1, 1, 60),
                (1, 3, 60),
                (-1, 3, 60),
            ],
        ),
        # one document: by cuBLASLt to 2.9
        ((2, 9), [ONE_ROW], [(1, 0, CUBLAS), (1, 1, LT)]),
        ((2, 10), [ONE_ROW], [(1, 0, CUBLAS)]),
    ],
)
def test_workspaces_of_products(version, kernels, expected):
    assert moves(Workspaces(Runtime(torch_version=version)), *kernels) == expected


def test_a_copied_matrix_lives_as_long_as_its_product():
    copied = product(shape=(64, 768, 768, 64 * 768))
    found = moves(Workspaces(Runtime(torch_version=(2, 13))), copied)
    assert found == [(1, 0, 64 * 768 * 4), (1, 1, CUBLAS), (-1, 0, 64 * 768 * 4)]


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
