"""What traced code keeps: it is taken out, or named."""

import sys
from types import ModuleType

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.tracer import trace
from tests.unit.prediction.modules import calls

NAME = "helpers_that_keep"
CODE = """
import functools, torch

MASK, LIST, TABLE = None, [], {}

class Rope:
    table = {}
    cos = None

ROPE = Rope()

@functools.lru_cache(maxsize=8)
def mask(device=None): return torch.ones(3, device=device)

@functools.cache
def unbounded(device=None): return {"mask": torch.ones(3, device=device)}

def attribute(device=None):
    global MASK
    MASK = torch.ones(3, device=device) if MASK is None else MASK
    return MASK

def table(device=None): return TABLE.setdefault(("mask", 3), torch.ones(3, device=device))
def nested(device=None): return TABLE.setdefault(1, {}).setdefault(2, [torch.ones(3, device=device)])[0]
def of_class(device=None): return Rope.table.setdefault(1, torch.ones(3, device=device))
def listed(device=None): LIST.append(torch.ones(3, device=device))
def of_object(device=None): ROPE.cos = torch.ones(3, device=device)
def on_class(device=None): Rope.cos = torch.ones(3, device=device)

def closing():
    kept = []
    def closure(device=None): kept.append(torch.ones(3, device=device))
    return closure

closure = closing()
"""


@pytest.fixture
def helpers():
    module = ModuleType(NAME)
    sys.modules[NAME] = module
    exec(CODE, vars(module))
    yield module
    del sys.modules[NAME]


@pytest.mark.parametrize("name", ["mask", "unbounded", "attribute", "table", "nested", "of_class"])
def test_caches_are_cold_after_a_trace(helpers, name):
    keep = getattr(helpers, name)
    one, other = (trace(calls(keep), steps=2) for _ in range(2))
    assert one.nbytes.tolist() == other.nbytes.tolist()
    made = keep()
    made = made["mask"] if name == "unbounded" else made
    assert type(made) is torch.Tensor
    assert made.sum() == 3


def test_a_step_that_fails_leaves_nothing_either(helpers):
    def fails(device):
        helpers.mask(device)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace(calls(fails))
    assert helpers.mask.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("listed", f"attribute {NAME}.LIST"),
        ("of_object", f"attribute {NAME}.ROPE"),
        ("on_class", f"the class {NAME}.Rope"),
        ("closure", f"the closure of {NAME}.closure"),
    ],
)
def test_what_cannot_be_taken_out_is_named(helpers, name, place):
    with pytest.raises(PredictionError, match="keep tensors of the trace") as refused:
        trace(calls(getattr(helpers, name)))
    assert refused.value.got == place


@pytest.mark.parametrize(
    ("name", "place"),
    [("mask", f"the lru_cache of {NAME}.mask"), ("attribute", f"attribute {NAME}.MASK")],
)
def test_a_warm_cache_of_real_tensors_is_named(helpers, name, place):
    keep = getattr(helpers, name)
    real = keep()
    with pytest.raises(PredictionError, match="a tensor with data") as refused:
        trace(calls(lambda device: keep() + torch.ones(3, device=device)))
    assert place in refused.value.hint
    assert keep() is real


def test_what_a_test_keeps_for_itself_is_its_own():
    kept = []
    trace(calls(lambda device: kept.append(torch.ones(3, device=device))), steps=1)
    assert len(kept) == 1


def test_accelerate_s_states_are_as_before():
    from accelerate.state import PartialState

    before = dict(PartialState._shared_state)
    trace(calls(lambda device: PartialState().device), steps=1)
    assert dict(PartialState._shared_state) == before


def test_a_module_that_is_first_imported_in_a_trace_is_not_of_it(tmp_path, monkeypatch):
    """What its import makes has data, as if it had been imported before."""
    (tmp_path / "imported_late.py").write_text(
        "import torch\n"
        "def scaled(x, scale=torch.tensor(2.0)): return x * scale\n"
        "TABLE = torch.ones(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def make_step(device):
        import imported_late

        assert imported_late.TABLE is not None
        x = torch.ones(3, device=device)
        return lambda: x * 2

    assert trace(make_step).peak_bytes > 0
    kept = sys.modules.pop("imported_late")
    assert kept.scaled(torch.ones(1)).item() == 2.0
    assert kept.TABLE.tolist() == [1.0] * 3
