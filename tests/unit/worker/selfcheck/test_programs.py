"""The loops of the self-check, also under the oldest transformers that they work with (`nox -s compat`)."""

import pytest
import torch

from ftbench.prediction.trace.tracer import Target, trace
from ftbench.selfcheck.rows import CELLS
from ftbench.worker.selfcheck.programs import make_step

BY_NAME = {row.name: dict(row.arguments) for row in CELLS}
CLASSES, WORDS = 2, 4096
LEFT_OUT = ("autocast", "optimizer")  # those that need a card


@pytest.mark.parametrize("name", BY_NAME)
def test_a_loop_trains_and_can_be_traced(name):
    arguments = BY_NAME[name]
    on_host = {key: value for key, value in arguments.items() if key not in LEFT_OUT}
    step = make_step(torch.device("cpu"), **on_host, batch=2, length=16)
    first, second = step().item(), step().item()
    chance = torch.tensor(float(WORDS if "decoder" in name else CLASSES)).log().item()
    assert first == pytest.approx(chance, rel=0.5)
    assert second != first

    found = trace(lambda device: make_step(device, **arguments), target=Target(), steps=2)
    weights = 2 if arguments.get("weights") == "bfloat16" else 4
    states = 1 if arguments.get("optimizer") == "sgd" else 2
    assert found.peak_bytes > WORDS * 256 * weights * (
        2 + states
    )  # the embedding, its gradient and state
