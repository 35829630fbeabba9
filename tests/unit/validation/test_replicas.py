"""Tests of adapters that every card has whole: what FSDP leaves out, and what the measurement does."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from tests.validation.fms.replicas import adapters_on_every_card

WIDTH, RANK = 8, 2


class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(2))


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.setattr(transformers.Trainer, "train", lambda self: "trained")
    plugin = SimpleNamespace(ignored_modules=None)
    state = SimpleNamespace(fsdp_plugin=plugin)
    model = get_peft_model(Base(), LoraConfig(r=RANK, target_modules=["first"]))
    accelerator = SimpleNamespace(state=state, device=torch.device("cpu"))
    return SimpleNamespace(model=model, accelerator=accelerator)


def test_matrices_are_ignored_and_their_bytes_left_out(trainer):
    with adapters_on_every_card() as uncounted:
        assert transformers.Trainer.train(trainer) == "trained"
    assert uncounted == [4 * RANK * WIDTH] * 2
    ignored = {
        parameter
        for module in trainer.accelerator.state.fsdp_plugin.ignored_modules
        for parameter in module.parameters()
    }
    trained = {one for one in trainer.model.parameters() if one.requires_grad}
    assert ignored == trained


def test_a_gradient_is_reduced_once(trainer, monkeypatch):
    reduced = []
    monkeypatch.setattr(torch.distributed, "all_reduce", reduced.append)
    with adapters_on_every_card():
        transformers.Trainer.train(trainer)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.sum().backward()
    assert [gradient.shape for gradient in reduced] == [(RANK, WIDTH), (WIDTH, RANK)]
