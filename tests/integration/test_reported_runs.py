"""The features of the loop are no empty words: each changes the peak as it does in real training."""

import sys
from pathlib import Path

import pytest

from ftbench.prediction.trace.steps import trace_steps
from tests import reported_runs
from tests.integration.conftest import some_long

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def train():
    """The program's module, loaded as the command line loads it: with its folder on the path."""
    folder = str(Path(reported_runs.__file__).parent / "programs")
    sys.path.insert(0, folder)
    try:
        import train

        yield train
    finally:
        sys.path.remove(folder)
        for name in ("train", "models"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def peak(train):
    """A function that returns the peak of a loop with these arguments, each traced once."""
    known = {}

    def of(**arguments):
        key = tuple(sorted(arguments.items()))
        if key not in known:
            traced = trace_steps(lambda device: train.make_step(device, **arguments), steps=2)
            known[key] = traced.peak_bytes
        return known[key]

    return of


@pytest.mark.parametrize(
    "feature",
    some_long(("amp16", "chunkedce", "ckpt", "lora", "offload", "opt8", "truehalf"), every=3),
)
def test_a_feature_that_saves_memory_does(peak, feature):
    assert peak(**{feature: True}) < 0.95 * peak()


def test_gradients_live_one_at_a_time_if_the_backward_pass_updates(peak):
    """With checkpointing the peak is in the backward pass, when all gradients would be live."""
    saving = {"truehalf": True, "chunkedce": True, "ckpt": True}
    assert peak(oib=True, **saving) < 0.95 * peak(**saving)


def test_quantized_weights_take_less(peak):
    adapted = {"truehalf": True, "lora": True, "chunkedce": True, "ckpt": True}
    assert peak(quant4=True, **adapted) < peak(**adapted)


def test_outputs_of_an_evaluation_stay(peak, train):
    """float32 scores of 4 texts of 128 tokens over 4,096 words, for each batch more."""
    scores = 4 * 4 * 128 * 4096
    more = peak(evaluated_batches=30) - peak(evaluated_batches=20)
    assert more == 10 * scores


def test_gradients_of_each_example_are_there_at_once(peak):
    """DP-SGD: four examples, so at least three times the gradients more."""
    assert peak(task="seq-cls", private=True) > 1.5 * peak(task="seq-cls")
