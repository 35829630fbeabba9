"""TorchScript in a trace: modules that a library imports late are compiled while torch's functions are replaced."""

import importlib
import sys

import torch

from ftbench.prediction.trace.tracer import trace

MODULE = """
import torch

@torch.jit.script
def steps(n: int):
    return torch.zeros(n) + torch.tensor(1.0) + torch.arange(n)
"""


def test_a_module_that_is_imported_in_a_trace_may_use_torchscript(tmp_path, monkeypatch):
    (tmp_path / "scripted_late.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def factory(device):
        importlib.import_module("scripted_late")
        return lambda: None

    trace(factory)
    assert sys.modules.pop("scripted_late").steps(3).tolist() == [1.0, 2.0, 3.0]
    assert torch.jit.script(torch.nn.Linear(2, 1)) is not None  # torch's table is as it was
