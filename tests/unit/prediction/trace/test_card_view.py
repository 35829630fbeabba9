"""The card as traced code sees it. Answers of tensors are checked against a fake CUDA device elsewhere:
tests/integration/test_cuda_operators.py, the case `asking`.
"""

import functools
import sys
from types import ModuleType

import pytest
import torch
from torch.cuda import is_available
from torch.utils.checkpoint import checkpoint

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.shown_device import SHOWN, place
from ftbench.prediction.trace.tracer import Target, trace
from tests.unit.prediction.modules import BATCH, ROWS, WIDTH, calls, events

TRACED = torch.device("cpu", 0)


def asked(question, **target):
    """Return what a question is answered in a trace, in the factory and in a step."""
    answers = []

    def factory(device):
        answers.append(question(device))
        return lambda: answers.append(question(device))

    trace(factory, steps=1, target=Target(**target))
    assert answers[0] == answers[1]
    return answers[0]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", 0, SHOWN, torch.device("cuda")])
def test_the_card_has_several_names(name):
    assert place(name, TRACED) == TRACED


@pytest.mark.parametrize("name", ["cpu", True, None, torch.float32, torch.device("cpu"), "cuda:1"])
def test_other_places_stay(name):
    assert place(name, TRACED) == (torch.device(name) if name == "cuda:1" else name)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (lambda device: device, torch.device("cuda", 0)),
        (lambda device: is_available(), True),
        (lambda device: torch.cuda.is_available(), True),
        (lambda device: torch.cuda.device_count(), 1),
        (lambda device: torch.cuda.current_device(), 0),
        (lambda device: torch.cuda.get_device_capability(device), (8, 0)),
        (lambda device: torch.cuda.get_device_properties(0).major, 8),
        (lambda device: torch.cuda.is_bf16_supported(), True),
        (lambda device: torch.cuda.get_rng_state().numel(), 16),
        (lambda device: torch.accelerator.is_available(), True),
        (lambda device: torch.accelerator.current_accelerator().type, "cuda"),
        (lambda device: torch.get_device_module(), torch.cuda),
        (lambda device: torch.amp.is_autocast_available("cuda"), True),
        (lambda device: torch.amp.GradScaler("cuda").is_enabled(), True),
        (lambda device: torch.backends.cuda.is_built(), True),
        (lambda device: torch.version.cuda is not None, True),
        (lambda device: torch.cuda.Event(enable_timing=True).query(), True),
        (lambda device: torch.cuda.synchronize(), None),
        (lambda device: torch.Generator(device).manual_seed(1).device.type, "cpu"),
        (lambda device: torch.ones(2).pin_memory().is_cpu, True),
    ],
)
def test_a_card_is_there_in_a_trace_and_not_after_it(question, answer):
    assert asked(question) == answer
    assert not is_available()
    assert torch.version.cuda is None
    assert not torch.backends.cuda.is_built()


def test_an_old_card_has_its_own_answers():
    questions = lambda device: (  # noqa: E731
        torch.cuda.get_device_capability(),
        torch.cuda.is_bf16_supported(including_emulation=False),
        torch.cuda.is_tf32_supported(),
    )
    assert asked(questions, compute_capability=(7, 5)) == ((7, 5), False, False)
    assert asked(questions) == ((8, 0), True, True)


def test_a_cpu_is_no_card():
    assert asked(lambda device: (str(device), torch.cuda.is_available()), device="cpu") == (
        "cpu",
        False,
    )


def test_memory_is_what_was_traced_so_far():
    def question(device):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = torch.ones(ROWS, WIDTH, device=device)
        del kept
        return torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before

    assert asked(question) == (0, BATCH)


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.ones(ROWS, WIDTH, device="cuda"),
        lambda device: torch.nn.Parameter(torch.ones(ROWS, WIDTH)).cuda(),
        lambda device: torch.ones(ROWS, WIDTH).to(0),
        lambda device: torch.ones(ROWS, WIDTH).type("torch.cuda.FloatTensor"),
        lambda device: torch.ones(ROWS, WIDTH).pin_memory().to(device, non_blocking=True),
    ],
)
def test_all_ways_to_the_card_are_counted(make):
    assert [nbytes for nbytes, _ in events(trace(calls(make), steps=1))][:1] == [BATCH]


def test_a_default_device_is_the_trace_s_own():
    def factory(device):
        torch.set_default_device(device)
        torch.set_default_dtype(torch.float64)
        constant = torch.tensor([1.0] * 4)
        return lambda: constant + torch.ones(4)

    assert trace(factory, steps=1).peak_bytes >= 2 * 4 * 8
    assert torch.ones(1).device == torch.device("cpu")
    assert torch.get_default_dtype() is torch.float32
    with torch.device("cpu"):
        assert torch.tensor([1.0]).device == torch.device("cpu")


def test_checkpointing_works_both_ways():
    def made(device, **how):
        model = torch.nn.Linear(4, 4, device=device)
        batch = torch.ones(2, 4, device=device, requires_grad=True)
        return checkpoint(model, batch, **how)

    for reentrant in (True, False):
        trace(calls(functools.partial(made, use_reentrant=reentrant), backward=True), steps=1)


@pytest.mark.parametrize(
    "question",
    [
        lambda device: torch.cuda.mem_get_info(),
        lambda device: torch.cuda.memory_stats(),
        lambda device: torch.cuda.get_device_properties(0).total_memory,
        lambda device: torch.cuda.get_stream_from_external(0),
    ],
)
def test_what_only_a_particular_card_knows_is_refused(question):
    with pytest.raises(PredictionError, match="only a particular card"):
        trace(calls(question))


def test_an_answer_that_was_kept_is_forgotten():
    helpers = ModuleType("helpers_that_ask")
    sys.modules[helpers.__name__] = helpers
    text = """
import functools, torch
DEVICE = None
@functools.cache
def on_card(): return torch.cuda.is_available()
def device():
    global DEVICE
    DEVICE = DEVICE or torch.device("cuda" if on_card() else "cpu")
    return DEVICE
"""
    try:
        exec(text, vars(helpers))
        assert asked(lambda device: helpers.device().type) == "cuda"
        assert helpers.DEVICE is None
        assert helpers.device() == torch.device("cpu")
    finally:
        del sys.modules[helpers.__name__]
