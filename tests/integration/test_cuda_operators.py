"""The emulated card against a fake CUDA device: the same events, one by one.

`ftbench.prediction.trace.operators` says what torch does on a card; the oracle is torch itself, whose own C++ takes
its CUDA branches on the device of `tests/fake_cuda`. What neither sees: kernels' own workspaces.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys

import pytest

from ftbench.prediction.trace import tracer
from ftbench.prediction.trace.tracer import Target, trace
from tests.fake_cuda.cases import Case, factory
from tests.fake_cuda.plain import plain

SDPA = {"attention": "sdpa"}
EFFICIENT = {"attention": "sdpa", "kernel": "efficient"}
FLASH = {"attention": "sdpa", "kernel": "flash", "padding": False}
CUDNN = {"attention": "sdpa", "kernel": "cudnn"}

CASES = (
    # Every model, both attentions, three types.
    Case("bert"),
    Case("bert", precision="bf16"),
    Case("bert", precision="fp16", scaler=True, clip=True),
    Case("bert", precision="pure-bf16"),
    Case("bert", **EFFICIENT, length=44),
    Case("bert", **SDPA, precision="fp16", scaler=True),
    Case("bert", **FLASH, precision="bf16"),
    Case("distilbert", padding=False),
    Case("distilbert", **EFFICIENT),
    Case("distilbert", **EFFICIENT, padding=False, length=41),
    Case("distilbert", **EFFICIENT, precision="fp16", length=44),
    Case("gpt2"),
    Case("gpt2", **EFFICIENT, precision="fp16", scaler=True),
    Case("opt"),
    Case("opt", **EFFICIENT, precision="bf16", padding=False),
    Case("llama"),
    Case("llama", **SDPA, padding=False),
    Case("llama", **FLASH, precision="pure-bf16"),
    Case("gpt2", precision="pure-bf16", clip=True),
    Case("llama", **EFFICIENT),
    Case("llama", **FLASH, precision="bf16"),
    Case("llama", **CUDNN, precision="bf16"),
    Case("llama-mha", **EFFICIENT, padding=False),
    Case("t5"),
    Case("t5", precision="bf16"),
    Case("t5", **EFFICIENT, optimizer="adafactor"),
    Case("medley"),
    Case("medley", kernel="efficient", batch=1, length=8),
    Case("medley", kernel="flash", precision="bf16"),
    Case("medley", kernel="flash", precision="pure-bf16"),
    Case("medley", precision="fp16", scaler=True),
    # What code does that asks whether it is on a card.
    Case("asking"),
    Case("asking", precision="fp16", scaler=True, clip=True),
    # What is done with the gradients.
    Case("bert", accumulation=2, steps=3),
    Case("bert", checkpointing=True),
    Case("bert", **EFFICIENT, precision="bf16", checkpointing=True),
    Case("opt", **EFFICIENT, length=44, checkpointing=True),
    Case("bert", clip=True),
    Case("bert", optimizer="sgd"),
    Case("bert", optimizer="adafactor"),
    Case("bert", optimizer="adamw-fused"),
    Case("bert", optimizer="adamw-fused", precision="fp16", scaler=True, clip=True),
    Case("distilbert", **EFFICIENT, optimizer="adamw-fused", precision="pure-bf16", length=45),
)


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What the fake device makes of the cases that are to be tested here, in one process."""
    items = (getattr(item, "callspec", None) for item in request.session.items)
    chosen = {spec.params["case"] for spec in items if spec and "case" in spec.params}
    cases = [case for case in CASES if case in chosen]
    folder = tmp_path_factory.mktemp("oracle")
    asked, require_answer = folder / "cases.json", folder / "outcomes.json"
    asked.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    command = [sys.executable, "-m", "tests.fake_cuda.run", str(asked), str(require_answer)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=request.config.rootpath)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(cases, json.loads(require_answer.read_text()), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_events_are_those_of_a_cuda_device(case, outcomes):
    expected = outcomes[case]
    assert "error" not in expected, expected["error"]
    target = Target(attention=case.kernel, padding=case.padding)
    found = plain(trace(factory(case), steps=case.steps, target=target))
    assert first_difference(found["events"], expected["events"]) is None
    assert first_difference(found["kernels"], expected["kernels"]) is None
    assert found["roles"] == expected["roles"]


@pytest.mark.parametrize("case", [Case("bert", **EFFICIENT, length=44)], ids=str)
def test_without_emulation_events_differ(case, outcomes, monkeypatch):
    """Otherwise the device would not be a CUDA device, and the tests above would say nothing."""
    monkeypatch.setattr(tracer, "cuda_operators", lambda *_: contextlib.nullcontext())
    target = Target(attention=case.kernel, padding=case.padding)
    found = {event[-1] for event in plain(trace(factory(case), target=target))["events"]}
    expected = {event[-1] for event in outcomes[case]["events"]}
    assert "aten::native_dropout" in expected - found
    assert "aten::_scaled_dot_product_efficient_attention" in expected - found


def first_difference(found, expected):
    """Return where two lists part, with what comes before; None where they are the same."""
    for place, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        if ours != theirs:
            return {
                "at": place,
                "before": found[max(0, place - 2) : place],
                "got": ours,
                "expected": theirs,
            }
    if len(found) != len(expected):
        return {"got": f"{len(found)} entries", "expected": f"{len(expected)} entries"}
    return None
