"""Work: FLOPs, bytes and kernels of steps that were worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ftbench.base.errors import PredictionError
from ftbench.plan.grid import expand
from ftbench.plan.sources import resolve_model
from ftbench.prediction.trace.events import EVALUATION
from ftbench.prediction.trace.trace_trainer import Batches, trace_trainer
from ftbench.prediction.trace.tracer import Target, trace
from ftbench.prediction.trace.work import WorkCounter, count_work
from ftbench.worker.measure.steps import example_flops
from ftbench.worker.prepare.flops import fit_flops
from ftbench.worker.recipe.method import with_method
from ftbench.worker.recipe.model import load_model
from tests.factories import data_source, profile, task
from tests.traced import traced_cell

BATCH, INPUT, HIDDEN, OUTPUT = 6, 10, 24, 5
FLOAT = 4  # bytes


def counted(factory, *, steps=2, target=None):
    """The work of the last step."""
    counter = WorkCounter()
    trace(factory, steps=steps, target=target, watch=counter.watch)
    return counter.work_of(steps, documents=BATCH, batches=1)


def perceptron(device):
    """A step of two layers with a rectifier between them, and plain gradient descent."""
    model = nn.Sequential(nn.Linear(INPUT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUT))
    model.to(device)
    batch = torch.randn(BATCH, INPUT, device=device)

    def step():
        model(batch).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-0.1)
                parameter.grad = None

    return step


@pytest.fixture(scope="module")
def step():
    return counted(perceptron)


def test_flops_are_those_of_five_products(step):
    first, second = BATCH * INPUT * HIDDEN, BATCH * HIDDEN * OUTPUT
    assert step.flops == 2 * (2 * first + 3 * second)  # no gradient of the input is needed


def test_products_read_their_operands_and_write_their_result(step):
    x, w1, b1 = BATCH * INPUT, INPUT * HIDDEN, HIDDEN
    h, w2, b2, y = BATCH * HIDDEN, HIDDEN * OUTPUT, OUTPUT, BATCH * OUTPUT
    forward = (b1 + x + w1 + h) + (b2 + h + w2 + y)
    # The gradient of a sum is one number, expanded.
    backward = (1 + h + w2) + (1 + w2 + h) + (h + x + w1)
    assert step.product_bytes == FLOAT * (forward + backward)


def test_all_other_operators_do_too(step):
    h, y = BATCH * HIDDEN, BATCH * OUTPUT
    parameters = INPUT * HIDDEN + HIDDEN + HIDDEN * OUTPUT + OUTPUT
    forward = (h + h) + (y + 1)
    backward = 1 + (1 + OUTPUT) + (h + h + h) + (h + HIDDEN)
    update = 3 * parameters
    assert step.other_bytes == FLOAT * (forward + backward + update)


def test_what_was_there_is_read_once_and_what_stays_is_written_once(step):
    parameters = INPUT * HIDDEN + HIDDEN + HIDDEN * OUTPUT + OUTPUT
    assert step.compulsory_bytes == FLOAT * (2 * parameters + BATCH * INPUT)


def test_views_start_no_kernel(step):
    assert step.kernels == 4 + 7 + 4  # forward, backward, one update a parameter


def test_every_step_is_counted_by_itself():
    assert counted(perceptron, steps=3) == counted(perceptron, steps=2)


def test_gradients_that_are_added_up_by_autograd_are_work():
    def twice(device):
        weight = torch.ones(64, device=device, requires_grad=True)

        def step():
            doubled = weight * 2
            (doubled * 3 + doubled * 5).sum().backward()
            weight.grad = None

        return step

    work = counted(twice)
    # 4 products and sums forward, then the gradient's 1, its products 2, their sum, and the last.
    assert work.kernels == 5 + 1 + 2 + 1 + 1
    n = 64
    assert work.other_bytes == FLOAT * (
        3 * 2 * n + 3 * n + (n + 1) + 1 + 2 * (1 + n) + 3 * n + 2 * n
    )


def test_rows_of_a_table_are_read_not_the_table():
    def lookup(device):
        table = nn.Embedding(1000, 8).to(device).requires_grad_(False)
        ids = torch.zeros(BATCH, 3, dtype=torch.int64, device=device)
        return lambda: table(ids)

    rows = BATCH * 3 * 8 * FLOAT
    ids = BATCH * 3 * 8  # of eight bytes each
    assert counted(lookup).other_bytes == 2 * rows + ids


@pytest.mark.parametrize(("tensors", "launches"), [(10, 1), (110, 1), (111, 2), (221, 3)])
def test_a_kernel_over_a_list_is_started_by_the_handful(tensors, launches):
    def many(device):
        ones = [torch.ones(4, device=device) for _ in range(tensors)]
        return lambda: torch._foreach_zero_(ones)

    assert counted(many).kernels == launches


def test_large_lists_are_started_by_the_chunk():
    def large(device):
        ones = [torch.ones(65536 * 400, device=device)]
        return lambda: torch._foreach_zero_(ones)

    work = counted(large)
    assert work.kernels == math.ceil(400 / 320)
    assert work.other_bytes == 65536 * 400 * FLOAT  # written, not read


def test_on_the_cpu_lists_are_loops():
    def many(device):
        ones = [torch.ones(4, device=device) for _ in range(10)]
        return lambda: torch._foreach_zero_(ones)

    assert counted(many, target=Target(device="cpu")).kernels == 10


def test_a_part_that_was_not_traced_has_no_work():
    counter = WorkCounter()
    trace(perceptron, steps=1, watch=counter.watch)
    with pytest.raises(PredictionError, match="no work was counted"):
        counter.work_of(EVALUATION, documents=1, batches=1)


# Against the worker's own count


LENGTH = 32
SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def small_cell(attention="eager", batch=4, method="full", **training):
    of = profile(
        workload={"weights": "random", "config": SMALL},
        grid=[
            {
                "max_length": [LENGTH],
                "per_device_train_batch_size": [batch],
                "train_size": [64],
                "method": [method],
            }
        ],
        training=training,
        attn_implementation=attention,
    )
    return expand(of, resolve_model(of.workload), data_source(eval_size=20)).cells[0]


def work_of(cell):
    return count_work(cell, Target(), Batches.of(cell))


@pytest.fixture(scope="module")
def document():
    """The FLOPs of training on one document, counted on real tensors."""
    model = load_model(small_cell().model, ("0", "1"), task(), attn_implementation="eager").model
    coefficients = fit_flops(model, LENGTH)
    return example_flops(coefficients, LENGTH)


@pytest.fixture(scope="module")
def plain():
    return work_of(small_cell())


def test_a_step_has_the_flops_of_its_documents(plain, document):
    assert plain.step.flops == 4 * document
    assert (plain.step.documents, plain.step.batches) == (4, 1)


def test_an_evaluation_has_a_third_of_a_step_for_each_document(plain, document):
    assert plain.evaluation.flops == 16 * document / 3
    assert (plain.evaluation.documents, plain.evaluation.batches) == (16, 2)


def test_fused_attention_computes_its_scores_again(document):
    again = 2 * 4 * LENGTH * LENGTH * 32 * 2  # a product of each head, in two layers
    assert work_of(small_cell("sdpa")).step.flops == 4 * document + again


def test_accumulated_batches_are_one_step(plain, document):
    work = work_of(small_cell(batch=2, gradient_accumulation_steps=3)).step
    assert (work.flops, work.documents, work.batches) == (6 * document, 6, 3)


def test_checkpointed_layers_are_computed_again(plain, document):
    checkpointed = work_of(small_cell(gradient_checkpointing=True))
    tokens = 2 * LENGTH * (4 * 32 * 32 + 2 * 32 * 64)
    attention = 2 * 2 * LENGTH * LENGTH * 32
    assert checkpointed.step.flops == 4 * (document + 2 * (tokens + attention))
    assert checkpointed.evaluation.flops == plain.evaluation.flops


def test_half_precision_moves_half_of_products(plain):
    half = work_of(small_cell(bf16=True))
    assert half.step.flops == plain.step.flops
    assert half.step.product_bytes == pytest.approx(plain.step.product_bytes / 2, rel=0.01)
    assert half.step.kernels > plain.step.kernels  # weights are cast


def test_a_checkpoint_has_parameters_and_both_moments(plain):
    model = load_model(small_cell().model, ("0", "1"), task(), attn_implementation="eager").model
    parameters = sum(p.numel() for p in model.parameters())
    counters = len(list(model.parameters())) * FLOAT
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    least = 3 * parameters * FLOAT
    assert least <= plain.checkpoint_bytes <= least + counters + buffers
    moved = plain.step.compulsory_bytes  # both moments and the weights, read and written
    assert 2 * least <= moved <= 2 * least + 1.1 * (counters + buffers)


def test_a_checkpoint_of_lora_has_what_is_trained_alone():
    cell = small_cell(method="lora")
    model = load_model(cell.model, ("0", "1"), task(), attn_implementation="eager").model
    trained = [
        p for p in with_method(model, "lora", task(), cell.lora).parameters() if p.requires_grad
    ]
    least = 3 * FLOAT * sum(p.numel() for p in trained)
    assert least <= work_of(cell).checkpoint_bytes <= least + FLOAT * len(trained)


def test_a_checkpoint_may_have_the_model_alone(plain):
    alone = work_of(small_cell(save_only_model=True)).checkpoint_bytes
    assert alone < plain.checkpoint_bytes / 2.9


def test_counting_changes_nothing_in_a_trace():
    cell = traced_cell("distilbert", batch=4, length=16)
    alone = trace_trainer(cell)
    watched = trace_trainer(cell, watch=WorkCounter().watch)
    assert alone.same_events(watched)
    assert np.array_equal(alone.nbytes, watched.nbytes)
