"""The fake mode of a trace, held against torch's own without a cache."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ftbench.prediction.trace import fake_mode
from ftbench.prediction.trace.fake_mode import TraceFakes
from ftbench.prediction.trace.tracer import trace

aten = torch.ops.aten
HOST = torch.device("cpu")
CARD = torch.device("cpu", 0)


@pytest.fixture(autouse=True)
def empty_cache():
    FakeTensorMode.cache_clear()
    yield
    FakeTensorMode.cache_clear()


def plain(**options):
    return torch.empty(4, 6, **options)


# Tensors of four rows and six columns, each different from the first in one thing.
TENSORS = {
    "plain": plain,
    "another type": lambda: plain(dtype=torch.bfloat16),
    "whole numbers": lambda: plain(dtype=torch.int64),
    "another shape": lambda: torch.empty(4, 8),
    "columns first": lambda: torch.empty(6, 4).t(),
    "not at the beginning": lambda: torch.empty(8, 6)[4:],
    "with a gradient": lambda: plain(requires_grad=True),
    "on the card": lambda: plain(device=CARD),
    "conjugate": lambda: torch.empty(4, 6, dtype=torch.complex64).conj(),
}
# Operators with arguments after the tensor: results of their own, views, in place, several, with a type.
CALLS = {
    "add": (aten.add.Tensor, (1,), {}),
    "add a fraction": (aten.add.Tensor, (1.0,), {}),
    "add true": (aten.add.Tensor, (True,), {}),
    "sum of rows": (aten.sum.dim_IntList, ([0],), {}),
    "sum of columns": (aten.sum.dim_IntList, ([1],), {}),
    "transposed": (aten.t.default, (), {}),
    "two columns": (aten.slice.Tensor, (1, 2, 4), {}),
    "multiplied in place": (aten.mul_.Tensor, (2,), {}),
    "largest of each row": (aten.max.dim, (1,), {}),
    "a copy on the card": (aten._to_copy.default, (), {"device": CARD}),
    "a copy in another type": (aten._to_copy.default, (), {"dtype": torch.float16}),
}


def described(result):
    """Return all of a result's tensors that an operator after it can ask for."""
    tensors = result if isinstance(result, (tuple, list)) else (result,)
    return [
        (
            *(one.dtype, tuple(one.shape), one.stride(), one.storage_offset(), one.layout),
            *(one.untyped_storage().nbytes(), one.fake_device, one.requires_grad),
            *(one.is_conj(), str(torch._C._dispatch_keys(one))),
        )
        for one in tensors
    ]


class Above(TorchDispatchMode):
    """Runs operators as a tracer does: below autograd, with the fake mode under it."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.run(func, args, kwargs or {})


def ran(mode, run):
    """Return what each operator makes of each tensor, and the errors."""
    found = {}
    with mode, Above(run), torch.no_grad():
        for (tensor, make), (call, (func, args, kwargs)) in itertools.product(
            TENSORS.items(), CALLS.items()
        ):
            try:
                found[tensor, call] = described(func(make(), *args, **kwargs))
            except RuntimeError as error:
                found[tensor, call] = str(error)
    return found


def test_results_from_the_cache_are_what_torch_computes():
    without = FakeTensorMode()
    without.cache_enabled = False
    computed = ran(without, lambda func, args, kwargs: func(*args, **kwargs))
    fakes = TraceFakes()
    assert ran(fakes, fakes.run) == computed
    hits, misses = fakes.cache_hits, fakes.cache_misses
    again = TraceFakes()  # another trace, with the cache of the first
    assert ran(again, again.run) == computed
    assert (fakes.cache_hits, fakes.cache_misses) == (hits, misses)  # torch was not asked
    assert misses > 60


def test_a_view_from_the_cache_has_the_storage_of_its_argument():
    with TraceFakes() as fakes:
        first, second = plain(), plain()
        for tensor in (first, second):
            view = fakes.run(aten.t.default, (tensor,), {})
            assert view.untyped_storage()._cdata == tensor.untyped_storage()._cdata
        copy = fakes.run(aten.clone.default, (second,), {})
        assert copy.untyped_storage()._cdata != second.untyped_storage()._cdata


def test_an_operator_in_place_returns_its_argument():
    with TraceFakes() as fakes:
        for tensor in (plain(), plain()):
            assert fakes.run(aten.mul_.Tensor, (tensor, 2), {}) is tensor


def test_a_tensor_from_the_cache_has_all_attributes_of_one_that_torch_makes():
    with TraceFakes() as fakes:
        tensors = [fakes.run(aten.add.Tensor, (plain(), 1), {}) for _ in range(3)]
        whole = FakeTensor(fakes, torch.empty(4, 6, device="meta"), HOST)
    for tensor in tensors:
        assert vars(tensor) == vars(whole)
        assert tensor.data.fake_mode is fakes


def test_a_constant_is_asked_for_its_value():
    with TraceFakes() as fakes:
        made = [fakes.run(aten.add.Tensor, (torch.tensor(number), 1), {}) for number in (2, 3)]
    assert [one.constant.item() for one in made] == [3, 4]


def test_a_mode_of_the_traced_code_makes_its_own_tensors():
    with TraceFakes() as fakes:
        for _ in range(2):
            fakes.run(aten.empty.memory_format, ([4],), {"device": HOST})
        with FakeTensorMode() as inner:
            made = fakes.run(aten.empty.memory_format, ([4],), {"device": HOST})
    assert made.fake_mode is inner


def two_layers(device):
    """A step of a small model with attention, a loss and AdamW."""
    layers = [torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(2)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(16, 3)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(2, 5, 16, device=device)

    def step():
        model(x).softmax(-1).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_a_trace_is_the_same_in_torchs_own_way(monkeypatch):
    """As versions of torch whose cache has another form are asked."""
    quick = trace(two_layers, steps=2)
    FakeTensorMode.cache_clear()
    monkeypatch.setattr(fake_mode, "_Entry", None)
    own = trace(two_layers, steps=2)
    assert list(quick.rows()) == list(own.rows())
    assert quick.nbytes.tolist() == own.nbytes.tolist()
    assert quick.kernels == own.kernels
    assert [site.operator for site in quick.sites] == [site.operator for site in own.sites]
