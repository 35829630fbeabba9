"""Memory of full fine-tuning, the head alone and LoRA, as the command line predicts it."""

import json

import pytest

from tests.integration.conftest import SMALL, ftbench

pytestmark = pytest.mark.integration

METHODS = ("full", "lora", "head")
WIDTH, INNER, RANK = 32, 32, 8  # of the one layer in SMALL, and LoRA's
HEAD = WIDTH * 2 + 2
MATRICES = RANK * (5 * (WIDTH + WIDTH) + 2 * (WIDTH + INNER))  # of the layer and the pooler
TENSORS = 2 + 2 * (6 + 1)  # those of the head, and two for each module that LoRA adapts


def said(verb, *arguments, **settings):
    """The cells that a command prints, of the smoke profile with a small model."""
    sets = [
        part for name, value in (SMALL | settings).items() for part in ("--set", f"{name}={value}")
    ]
    done = ftbench(verb, "smoke", "--json", *sets, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["refused"] == []
    return document["cells"]


@pytest.mark.long
def test_the_less_is_trained_the_less_memory_it_takes():
    asked = {
        "grid.method": json.dumps(METHODS),
        "grid.max_length": "[16]",
        "grid.train_size": "[16]",
    }
    cells = {cell["method"]: cell["tensors"] for cell in said("predict", **asked)}
    assert {one["certainty"] for one in cells.values()} == {"exact"}
    full, lora, head = (cells[method]["value_bytes"] for method in METHODS)
    assert full > lora > head


def test_what_loras_peak_consists_of():
    (cell,) = said("explain", "--cell", "max_length=16,train_size=16", method="lora")
    roles = {role["name"]: role["nbytes"] for role in cell["composition"]["roles"]}
    trained = HEAD + MATRICES
    # Two moments in float32 of what is trained, and the number of the step for each of its tensors.
    assert roles["optimizer state"] == 2 * 4 * trained + 4 * TENSORS
    assert roles.get("gradients", 0) <= 4 * trained < roles["parameters"] / 100
