import pytest
import torch
from torch import nn
from torch.nn import functional

from ftbench.prediction.trace.events import BACKWARD, FORWARD, Kernel, Kind
from ftbench.prediction.trace.kernels import kernel_of
from ftbench.prediction.trace.tracer import Target, trace
from tests.unit.prediction.modules import calls, linear

aten = torch.ops.aten


def of(operator, *args):
    found = kernel_of(operator, args, autograd=False)
    return None if found is None else (found.operator, found.sizes, found.traits)


def test_products():
    left, right = torch.ones(2, 3), torch.ones(3, 5)
    assert of(aten.mm.default, left, right) == ("aten::mm", (2, 3, 5), (0, 4))
    half = of(aten.mm.default, left.half(), right.half())
    assert half == ("aten::mm", (2, 3, 5), (0, 2))


@pytest.mark.parametrize(
    ("left", "right", "copies"),
    [
        (torch.ones(()).expand(2, 3), torch.ones(3, 5), (6, 0)),
        (torch.ones(()).expand(3, 2).t(), torch.ones(3, 5), (6, 0)),
        (torch.ones(2, 3), torch.ones(3, 1).expand(3, 5), (0, 15)),
        (torch.ones(2, 6)[:, ::2], torch.ones(3, 10)[:, ::2], (6, 15)),
        (torch.ones(3, 2).t(), torch.ones(3, 8)[:, :5], ()),
        (torch.ones(7, 2, 1).expand(7, 2, 3), torch.ones(7, 3, 5), (42, 0)),
        (torch.ones(2, 3).expand(7, 2, 3), torch.ones(7, 5, 3).mT, ()),
    ],
)
def test_a_product_copies_a_matrix_that_cublas_cannot_read(left, right, copies):
    operator = aten.mm.default if left.dim() == 2 else aten.bmm.default
    assert of(operator, left, right)[1] == (2, 3, 5, *copies)


def test_products_of_batches():
    left, right = torch.ones(7, 2, 3), torch.ones(7, 3, 5)
    assert of(aten.bmm.default, left, right) == ("aten::bmm", (2, 3, 5), (0, 4))
    added = of(aten.baddbmm.default, torch.ones(7, 2, 5), left, right)
    assert added == ("aten::baddbmm", (2, 3, 5), (0, 4))


@pytest.mark.parametrize(("bias", "vector"), [((5,), 1), ((2, 5), 0), ((1, 5), 0)])
def test_a_sum_and_product_says_whether_it_adds_a_vector(bias, vector):
    found = of(aten.addmm.default, torch.ones(bias), torch.ones(2, 3), torch.ones(3, 5))
    assert found == ("aten::addmm", (2, 3, 5), (vector, 4))


def test_the_gradient_of_an_embedding():
    gradient, tokens = torch.ones(2, 6, 8), torch.zeros(2, 6, dtype=torch.int64)
    found = of(aten.embedding_dense_backward.default, gradient, tokens, 100, 0, False)
    assert found == ("aten::embedding_dense_backward", (12, 8, 100), (4, 8))


@pytest.mark.parametrize(
    ("shape", "dims", "sizes"),
    [
        ((6, 8), [0], (6, 8)),
        ((2, 6, 8), [0, 1], (12, 8)),
        ((2, 6, 8), [1, 0], (12, 8)),
        ((2, 6, 8), [-3], (2, 48)),
        ((2, 6, 8), [0], (2, 48)),
    ],
)
def test_sums_of_columns(shape, dims, sizes):
    assert of(aten.sum.dim_IntList, torch.ones(shape), dims) == ("aten::sum", sizes, (4,))


@pytest.mark.parametrize("dims", [[1], [-1], [0, 2], [0, 1, 2], [], None])
def test_other_sums_want_nothing(dims):
    assert of(aten.sum.dim_IntList, torch.ones(2, 6, 8), dims) is None


def test_a_sum_over_the_columns_of_a_transposed_matrix_is_another_kernel():
    assert of(aten.sum.dim_IntList, torch.ones(8, 6).t(), [0]) is None


def test_the_gradient_of_a_layer_norm():
    batch = torch.ones(2, 6, 8)
    found = of(aten.native_layer_norm_backward.default, batch, batch, [8], None, None)
    assert found == ("aten::native_layer_norm_backward", (12, 8), (4,))
    found = of(aten.native_layer_norm_backward.default, batch, batch, [6, 8], None, None)
    assert found == ("aten::native_layer_norm_backward", (2, 48), (4,))


def test_norms_of_a_list():
    tensors = [torch.ones(3), torch.ones(4, 5)]
    assert of(aten._foreach_norm.Scalar, tensors, 2) == ("aten::_foreach_norm", (), (2, 20))
    assert of(aten._foreach_norm.Scalar, [], 2) is None


@pytest.mark.parametrize("kind", ["efficient", "flash"])
def test_the_gradient_of_attention_with_fewer_heads_of_keys(kind):
    operator = getattr(aten, f"_scaled_dot_product_{kind}_attention_backward").default
    query, key = torch.ones(2, 8, 5, 16), torch.ones(2, 4, 7, 16)
    found = of(operator, query, query, key, key)
    assert found == (operator._schema.name, (2, 8, 5, 7, 16, 4), (4,))


def test_other_operators_want_nothing():
    assert of(aten.relu.default, torch.ones(3)) is None


# In a trace


def kernels(found):
    return [
        (found.kernels[block], found.sites[site].phase)
        for kind, block, site in zip(found.kind, found.block, found.site, strict=True)
        if kind == Kind.KERNEL
    ]


def test_the_kernels_of_a_step_in_their_order_with_their_threads():
    assert kernels(trace(linear(), steps=1)) == [
        (Kernel("aten::addmm", (2, 4, 4), (1, 4), False), FORWARD),
        (Kernel("aten::mm", (4, 2, 4, 8, 0), (0, 4), True), BACKWARD),
    ]


def test_a_bias_gradient_of_a_gradient_that_is_really_there():
    def step(device):
        model = nn.Linear(4, 4, device=device)
        return model(torch.ones(2, 4, device=device)).sigmoid()

    found = kernels(trace(calls(step, backward=True), steps=1))
    assert found[-1] == (Kernel("aten::sum", (2, 4), (4,), True), BACKWARD)


def test_a_kernel_begins_before_its_result_is_there():
    found = trace(linear(), steps=1)
    rows = found.kind.tolist()
    first = rows.index(Kind.KERNEL)
    assert rows[first : first + 3] == [Kind.KERNEL, Kind.ALLOCATE, Kind.RESULT]
    assert len({found.site[row] for row in range(first, first + 3)}) == 1


def test_an_embedding_and_clipping():
    def factory(device):
        model = nn.Embedding(10, 4, device=device)
        tokens = torch.zeros(2, 3, dtype=torch.int64, device=device)

        def step():
            model(tokens).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)

        return step

    found = [kernel for kernel, _ in kernels(trace(factory, steps=1))]
    assert Kernel("aten::embedding_dense_backward", (6, 4, 10), (4, 8), True) in found
    assert found[-1] == Kernel("aten::_foreach_norm", (), (1, 40), False)


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "efficient"), (torch.half, "flash")])
def test_attention_is_the_kernel_that_a_card_would_take(dtype, kind):
    def step(device):
        query = torch.ones(2, 3, 5, 16, device=device, dtype=dtype, requires_grad=True)
        return functional.scaled_dot_product_attention(query, query, query)

    name = f"aten::_scaled_dot_product_{kind}_attention_backward"
    expected = Kernel(name, (2, 3, 5, 5, 16, 3), (dtype.itemsize,), True)
    assert kernels(trace(calls(step, backward=True), steps=1)) == [(expected, BACKWARD)]


def test_a_cpu_has_no_kernels():
    assert trace(linear(), steps=1, target=Target(device="cpu")).kernels == ()
