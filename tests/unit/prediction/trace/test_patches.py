import sys
import types

import pytest
import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _foreach_utils
from transformers.utils import import_utils

from ftbench.base.errors import PatchError, PredictionError
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.tracer import trace


class Owner:
    """Something with a name to replace, and one that is not its own."""

    def __str__(self):
        return "own"


# The names


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(PatchError) as missing:
        patches.require(torch.utils, "swap_tensors_of_tomorrow")
    assert missing.value.where == "torch.utils.swap_tensors_of_tomorrow"
    assert f"torch {torch.__version__.partition('+')[0]}" in missing.value.got
    assert f"transformers {transformers.__version__}" in missing.value.got
    assert "2.13.0" in missing.value.expected
    assert isinstance(missing.value, PredictionError)  # so whoever predicts catches it


def test_a_name_of_an_object_is_named_with_its_type():
    with pytest.raises(PatchError) as missing:
        patches.require(Owner(), "gone")
    assert missing.value.where == "Owner.gone"


def test_a_patch_whose_name_is_gone_is_an_error_that_names_it(monkeypatch):
    monkeypatch.delattr(torch.utils, "swap_tensors")
    with pytest.raises(PatchError, match=r"swap_tensors"), patches.modules_move():
        pass


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_versions_here_are_known_to_work(name):
    # Where this fails, run all tests of `predict` and put the version into KNOWN.
    assert dict(patches.library_versions())[name].partition("+")[0] in patches.KNOWN[name]


def test_versions_of_what_is_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(patches, "TRACED_LIBRARIES", ("torch", "no-such-library"))
    assert [name for name, _ in patches.library_versions()] == ["torch"]


# Replacing


def test_a_name_is_replaced_for_as_long_as_it_lasts():
    owner = types.SimpleNamespace(name=1)
    with patches.replaced(owner, "name", lambda original: original + 1):
        assert owner.name == 2
    assert owner.name == 1


def test_a_name_comes_back_when_the_body_fails():
    owner = types.SimpleNamespace(name=1)
    with pytest.raises(ZeroDivisionError), patches.replaced(owner, "name", lambda _: 2):
        raise ZeroDivisionError
    assert owner.name == 1


def test_a_name_that_is_inherited_is_inherited_again():
    before = dict(vars(Owner))
    with patches.replaced(Owner, "__repr__", lambda original: lambda self: "replaced"):
        assert repr(Owner()) == "replaced"
    assert dict(vars(Owner)) == before


def test_nothing_is_replaced_where_the_name_is_missing():
    owner = types.SimpleNamespace()
    with pytest.raises(PatchError), patches.replaced(owner, "name", lambda _: 2):
        pass
    assert vars(owner) == {}


def test_replacing_what_is_replaced():
    owner = types.SimpleNamespace(name=1)
    with patches.replaced(owner, "name", lambda n: n + 1):
        with patches.replaced(owner, "name", lambda n: n + 1):
            assert owner.name == 3
        assert owner.name == 2
    assert owner.name == 1


# Each patch


def test_optimizers_take_fakes_for_parameters_on_a_card():
    kinds = list(_foreach_utils._foreach_supported_types)
    assert FakeTensor not in kinds
    for _ in range(2):
        with patches.multi_tensor_optimizers():
            assert FakeTensor in _foreach_utils._foreach_supported_types
            assert "cpu" in _foreach_utils._get_foreach_kernels_supported_devices()
        assert list(_foreach_utils._foreach_supported_types) == kinds
        assert "cpu" not in _foreach_utils._get_foreach_kernels_supported_devices()


def test_optimizers_are_as_before_when_the_body_fails():
    with pytest.raises(ZeroDivisionError), patches.multi_tensor_optimizers():
        raise ZeroDivisionError
    assert FakeTensor not in _foreach_utils._foreach_supported_types


def test_autocast_for_a_card_is_that_of_the_traced_device():
    with patches.autocast_moves():
        with torch.autocast("cuda"):
            assert torch.is_autocast_enabled("cpu")
            assert torch.get_autocast_dtype("cpu") is torch.float16
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.get_autocast_dtype("cpu") is torch.bfloat16
        with torch.autocast("cuda", enabled=False):
            assert not torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu"):
            assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_constants_for_the_traced_device_alone_are_moved():
    device = torch.device("cpu", 0)
    with patches.constants_move(device):
        assert torch.tensor([1, 2], device=device).tolist() == [1, 2]
        assert torch.tensor([1.5]).device == torch.device("cpu")
        assert torch.tensor([1, 2], dtype=torch.float64, device="cpu").dtype is torch.float64
        assert torch.as_tensor(3, device=device).item() == 3
        with pytest.raises(TypeError):
            torch.tensor()


looks_for_fakes = pytest.mark.skipif(
    not hasattr(import_utils, "is_fake_tensor"), reason="this transformers does not look for fakes"
)


@looks_for_fakes
def test_masks_are_as_with_data():
    before = import_utils.is_fake_tensor
    with patches.masks_as_with_data():
        assert import_utils.is_fake_tensor is not before
        assert not import_utils.is_fake_tensor(None)
    assert import_utils.is_fake_tensor is before


def test_masks_of_a_version_that_does_not_look(monkeypatch):
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "4.51.3")
    monkeypatch.delattr(import_utils, "is_fake_tensor", raising=False)
    with patches.masks_as_with_data():
        assert not hasattr(import_utils, "is_fake_tensor")


def test_masks_of_a_version_that_looks_by_another_name(monkeypatch):
    monkeypatch.setattr(sys.modules["transformers"], "__version__", "5.99.0")
    monkeypatch.delattr(import_utils, "is_fake_tensor", raising=False)
    with pytest.raises(PatchError, match="is_fake_tensor"), patches.masks_as_with_data():
        pass


def test_a_module_that_is_moved_keeps_its_parameters():
    with torch._subclasses.FakeTensorMode(), patches.modules_move():
        model = nn.Linear(2, 3)
        model.register_buffer("buffer", torch.ones(4))
        before = list(model.parameters())
        model.to(torch.device("cpu", 0))
        assert all(one is other for one, other in zip(before, model.parameters(), strict=True))
        assert {t.device for t in (*before, model.buffer)} == {torch.device("cpu", 0)}
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in before)


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_stay_on_a_parameter_of_a_module_that_moves(register):
    """As with real tensors, whose data is replaced; a hook may take the optimizer's step."""
    seen = []

    def factory(device):
        layer = torch.nn.Linear(3, 2)
        for name, parameter in layer.named_parameters():
            getattr(parameter, register)(lambda *_, name=name: seen.append(name))
        layer.to(device)

        def step():
            layer(torch.ones(4, 3, device=device)).sum().backward()

        return step

    trace(factory, steps=2)
    assert sorted(seen) == ["bias", "bias", "weight", "weight"]
