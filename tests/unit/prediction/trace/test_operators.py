"""What stands in for CUDA's operators: which kernel is taken, what it saves, and that it goes again."""

import itertools

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from ftbench.prediction.trace.operators import cuda_operators, results_on_card
from ftbench.prediction.trace.tracer import Target, trace
from tests.unit.prediction.modules import allocations

aten = torch.ops.aten
VOLTA, TURING, AMPERE, RTX, HOPPER, BLACKWELL = (7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (12, 0)
HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32


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


def test_on_the_cpu_mixed_types_are_copied_to_one():
    """The copy is freed before the next operator; on CUDA there is none."""

    def run(device):
        half = torch.ones(10, 30, device=device, dtype=BFLOAT)
        return half + torch.ones(10, 30, device=device) + half.mul(2.0)

    copied = [1200, 1200]  # each of two sums copies its half
    assert allocations(run, operator="aten::_to_copy", target=Target(device="cpu")) == copied
    assert allocations(run, operator="aten::_to_copy") == []
    assert allocations(run, operator="aten::add") == [1200, 1200]


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


@pytest.mark.parametrize("loss", ["mse_loss", "smooth_l1_loss", "binary_cross_entropy"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_lies_in_the_storage_that_torch_leaves_it_in(loss, reduction):
    """The real operator is asked: its storage keeps a value per element, whatever it was reduced to."""
    compute = getattr(torch.nn.functional, loss)

    def run(device):
        answers = torch.full((8, 3), 0.5, device=device, requires_grad=True)
        found = compute(answers, torch.zeros(8, 3, device=device), reduction=reduction)
        found.sum().backward()
        return found

    real = run("cpu")
    assert real.shape == ((8, 3) if reduction == "none" else ())
    assert real.untyped_storage().nbytes() == 8 * 3 * 4
    for target in (Target(), Target(device="cpu")):
        assert allocations(run, operator=f"aten::{loss}", target=target) == [8 * 3 * 4]


def test_an_embedding_copies_indices_that_are_no_row():
    """As torch's own C++ does on a card that runs (tests/fake_cuda/running_cuda.cpp)."""

    def run(device):
        table = torch.ones(50, 8, device=device)
        row = torch.zeros(1, 6, dtype=torch.int64, device=device)
        functional.embedding(row, table)
        functional.embedding(row.expand(4, 6), table)
        functional.embedding(torch.zeros(6, 4, dtype=torch.int64, device=device).t(), table)

    for target in (None, Target(device="cpu")):
        assert allocations(run, operator="aten::clone", target=target) == [192, 192]


def test_several_indices_get_the_same_strides_on_a_card_only():
    def run(device):
        mask = torch.ones(4, 6, device=device)
        rows, columns = torch.arange(4, device=device), torch.arange(6, device=device)
        mask[rows[:, None], columns[None, :]]  # both are expanded, and differ in strides
        mask[columns[:4], rows]  # alike already
        mask[rows]  # one alone
        mask[rows[:, None].expand(4, 6).contiguous(), columns[None, :]]  # one is as it must be

    assert allocations(run, operator="aten::clone") == [192, 192, 192, 192]
    assert allocations(run, operator="aten::clone", target=Target(device="cpu")) == [192]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_its_formula_adds_the_mask_in_place_as_with_data(causal):
    side = 67
    scores = 2 * 3 * side * side * 4

    def run(device):
        query = torch.ones(2, 3, side, 8, device=device, requires_grad=True)
        mask = None if causal else torch.zeros(2, 1, side, side, device=device)
        with sdpa_kernel(SDPBackend.MATH):
            out = functional.scaled_dot_product_attention(query, query, query, mask, 0.1, causal)
        out.sum().backward()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run(torch.device("cpu"))
    events = watched.profiler.kineto_results.events()
    with_data = sum(one.name() == "[memory]" and one.nbytes() == scores for one in events)
    assert with_data > 4
    assert allocations(run, target=Target(device="cpu")).count(scores) == with_data
    # A card's dropout keeps one byte per element.
    on_card = allocations(run, target=Target(attention="math"))
    assert on_card.count(scores) == with_data - 1
