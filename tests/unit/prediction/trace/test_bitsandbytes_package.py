"""Optimizers of bitsandbytes in a trace: the states of its own code, by its formulas and by the real thing."""

import importlib.util
import math
import subprocess
import sys
import tempfile

import pytest
import torch

from ftbench.base.errors import PredictionError
from ftbench.base.units import format_bytes
from ftbench.prediction.predict_cells import predict
from ftbench.prediction.trace import trace_trainer as trainer
from ftbench.prediction.trace.bitsandbytes_package import BITSANDBYTES_OPTIMIZERS, load_bitsandbytes
from ftbench.prediction.trace.events import Kind
from ftbench.prediction.trace.trace_trainer import refuse_uncovered, trace_trainer
from ftbench.prediction.trace.tracer import Target, trace
from ftbench.worker.measure.phases import PhaseBook
from ftbench.worker.measure.steps import StepBook
from ftbench.worker.recipe.finetune import make_trainer
from ftbench.worker.recipe.model import load_model
from ftbench.worker.two_step_pass import first_steps_of
from tests.factories import task as task_of_texts
from tests.traced import traced_cell
from tests.unit.prediction.modules import sizes

FLOAT, MAPS = 4, 2 * 256 * 4
SMALL, BLOCK, PAGED = 4096, 256, 100_000


def tiny(optimizer, **settings):
    """A BERT with an embedding of 256,000 elements, and layers with more and less than 4096."""
    sizes = {"vocab_size": 4000, "num_hidden_layers": 1}
    return traced_cell("bert", optim=optimizer, config=sizes, batch=2, length=16, **settings)


def traced(optimizer, **settings):
    cell = tiny(optimizer, **settings)
    return trace_trainer(cell, Target(padding=False), steps=2, evaluation=False)


def state_bytes(found):
    roles = found.roles()
    return sum(
        int(nbytes)
        for (kind, block, _), nbytes in zip(found.rows(), found.nbytes, strict=True)
        if kind == Kind.ALLOCATE and roles[block] == "optimizer state"
    )


@pytest.fixture(scope="module")
def elements():
    """The elements of each parameter, and whether it is an embedding's."""
    cell = tiny("adamw_torch")
    model = load_model(cell.model, ("0", "1"), task_of_texts(), attn_implementation="sdpa").model
    return [
        (parameter.numel(), isinstance(module, torch.nn.Embedding))
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    ]


def in_8_bits(elements, states):
    """The bytes of states, by the table of the module."""
    wide = sum(FLOAT * n for n, embedding in elements if n < SMALL or embedding)
    narrow = [n for n, embedding in elements if n >= SMALL and not embedding]
    return states * (wide + sum(n + FLOAT * math.ceil(n / BLOCK) for n in narrow))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw_8bit", "adamw_bnb_8bit"])
def test_states_in_8_bits(optimizer, dtype, elements):
    found = traced(optimizer, dtype=dtype)
    assert state_bytes(found) == in_8_bits(elements, 2) + MAPS
    assert found.managed_bytes == 0
    assert "bitsandbytes::optimizer_update_8bit_blockwise" in calls(optimizer, dtype)


def calls(optimizer, dtype):
    """The operators that a traced step runs."""
    seen = set()

    def watch(tracer):
        tracer.watch = lambda func, *_: seen.add(str(func._schema.name))

    trace_trainer(
        tiny(optimizer, dtype=dtype),
        Target(padding=False),
        steps=1,
        evaluation=False,
        watch=watch,
    )
    return seen


def test_paged_states_are_counted_apart(elements):
    found = traced("paged_adamw_8bit")
    managed = sum(2 * FLOAT * n for n, embedding in elements if embedding and n >= PAGED)
    assert found.managed_bytes == managed == 2 * FLOAT * 4000 * 64
    assert state_bytes(found) == in_8_bits(elements, 2) + MAPS - managed
    plain = traced("adamw_8bit")
    assert plain.peak_bytes - found.peak_bytes == managed


def test_paged_states_in_32_bits(elements):
    found = traced("paged_adamw_32bit")
    assert state_bytes(found) + found.managed_bytes == 2 * FLOAT * sum(n for n, _ in elements)


@pytest.mark.parametrize("optimizer", ["lion_8bit", "rmsprop_bnb_8bit"])
def test_optimizers_with_one_state(optimizer, elements):
    assert state_bytes(traced(optimizer)) == in_8_bits(elements, 1) + MAPS // 2


@pytest.mark.parametrize("optimizer", BITSANDBYTES_OPTIMIZERS)
def test_all_of_them_are_covered(optimizer):
    refuse_uncovered(tiny(optimizer))
    assert traced(optimizer).peak_bytes > 0


def test_the_real_optimizer_has_the_same_states():
    """On the processor, for which bitsandbytes has kernels: the Trainer's own optimizer after a step."""
    cell = tiny("adamw_8bit")
    pools = trainer._pools(cell, trainer.Batches.of(cell), 2)
    with tempfile.TemporaryDirectory() as output, trainer._states_of_its_own():
        real = make_trainer(
            first_steps_of(cell, 1),
            ("0", "1"),
            pools,
            seed=0,
            output=output,
            use_cpu=True,
            phases=PhaseBook([]),
            steps=StepBook(),
        )
        real.train()
    tensors = {
        value.data_ptr(): value.nbytes
        for state in real.optimizer.optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    }
    assert state_bytes(traced("adamw_8bit")) == sum(tensors.values())


def test_nothing_of_a_trace_stays_in_the_package():
    from bitsandbytes import functional
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    def state():
        names = ("create_dynamic_map", "get_paged", "fill", "prefetch_tensor")
        return [GlobalOptimManager._instance, *(getattr(functional, name) for name in names)]

    before = state()
    traced("paged_adamw_8bit")
    assert state() == before


def test_a_prediction_says_what_is_in_managed_memory():
    cell = tiny("paged_adamw_8bit")
    found = predict([cell])
    assert found.cells[0].managed_bytes == 2 * FLOAT * 4000 * 64
    size = format_bytes(2 * FLOAT * 4000 * 64)
    assert any(f"{size} of state in managed memory" in note for note in found.notes)
    assert not any("managed" in note for note in predict([tiny("adamw_8bit")]).notes)


def test_a_trace_of_a_processor_is_refused():
    with pytest.raises(PredictionError, match="as on a card only") as refused:
        trace_trainer(tiny("adamw_8bit"), Target(device="cpu"), steps=1)
    assert refused.value.got == "adamw_8bit"


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PredictionError, match="bitsandbytes") as refused:
        load_bitsandbytes("training.optim", "adamw_8bit")
    assert (refused.value.where, refused.value.got) == ("training.optim", "adamw_8bit")
    assert "ftbench[bitsandbytes]" in refused.value.hint


@pytest.mark.parametrize(("name", "managed"), [("AdamW8bit", 0), ("PagedAdamW8bit", 2 * 512 * 512)])
def test_an_optimizer_in_a_loop_of_one_s_own(name, managed):
    """A state of a byte per element, twice, their scales per block, and a map for each."""
    optim = importlib.import_module("bitsandbytes.optim")

    def factory(device):
        model = torch.nn.Linear(512, 512, bias=False, device=device)
        optimizer = getattr(optim, name)(model.parameters())
        rows = torch.ones(2, 512, device=device)

        def step():
            model(rows).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    found = trace(factory)
    state = 2 * (512 * 512 + FLOAT * 512 * 512 // BLOCK) + MAPS
    assert found.managed_bytes == managed
    assert sum(sizes(found, "optimizer state")) == state - managed


def test_the_package_may_be_imported_first_in_a_trace():
    """As peft does, which transformers imports with its optimizers."""
    code = """
import torch
from ftbench.prediction.trace.tracer import trace

def factory(device):
    import bitsandbytes
    return lambda: torch.ones(1, device=device)

trace(factory, steps=1)
assert not hasattr(torch._C, "_cuda_getCurrentRawStream") or torch.version.cuda
"""
    subprocess.run([sys.executable, "-c", code], check=True)
