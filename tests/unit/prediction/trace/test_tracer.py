"""What a trace says of small modules, against a count by hand and against torch's own allocator."""

import contextlib
import copy
import gc
import random
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.nn import functional
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils import _foreach_utils

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace.events import (
    AFTER_BACKWARD,
    BACKWARD,
    FORWARD,
    INPUT,
    OPTIMIZER,
    SETUP,
)
from ftbench.prediction.trace.tracer import Target, trace, tracing
from tests.unit.prediction.modules import (
    BATCH,
    BIAS,
    FLOAT,
    ROWS,
    WEIGHT,
    WIDTH,
    calls,
    events,
    linear,
    sizes,
)

CPU = Target(device="cpu")


# Counts by hand


def test_every_event_of_a_linear_layer():
    found = trace(linear(), steps=1)
    assert events(found, SETUP) == [
        (WEIGHT, "aten::empty"),
        (BIAS, "aten::empty"),
        (BATCH, "aten::ones"),
    ]
    assert events(found, FORWARD) == [
        (BATCH, "aten::addmm"),
        (FLOAT, "aten::sum"),
        (-BATCH, ""),
        (FLOAT, "aten::ones_like"),  # the loss's own gradient
    ]
    assert events(found, BACKWARD) == [(WEIGHT, "aten::mm"), (BIAS, "aten::sum")]
    assert events(found, AFTER_BACKWARD) == [(-FLOAT, "")]
    assert events(found, OPTIMIZER) == [(-WEIGHT, ""), (-BIAS, "")]
    assert found.peak_bytes == 2 * WEIGHT + 2 * BIAS + BATCH + 2 * FLOAT


def test_the_roles_of_a_linear_layer_with_adam():
    found = trace(linear(torch.optim.Adam), steps=2)
    assert sizes(found, "parameters") == [WEIGHT, BIAS]
    assert sizes(found, "inputs") == [BATCH]
    assert sizes(found, "gradients") == 2 * [WEIGHT, BIAS]
    assert sorted(sizes(found, "optimizer state")) == sorted(2 * [WEIGHT, BIAS])


def test_phases_and_steps():
    found = trace(linear(torch.optim.Adam), steps=3)
    phases = [(place.phase, place.step) for place in (found.sites[n] for n in found.site)]
    assert list(dict.fromkeys(phases)) == [
        (SETUP, 0),
        *(
            (phase, step)
            for step in (1, 2, 3)
            for phase in (FORWARD, BACKWARD, AFTER_BACKWARD, OPTIMIZER)
        ),
    ]
    # What Adam keeps is made in the first step's end, and in no other.
    state = [
        row for row in range(len(found)) if found.roles()[found.block[row]] == "optimizer state"
    ]
    assert {found.sites[found.site[row]][:2] for row in state} == {(OPTIMIZER, 1)}


def test_what_a_step_makes_before_the_model_runs_is_input():
    def factory(device):
        model = nn.Linear(WIDTH, WIDTH, device=device)

        def step():
            model(torch.ones(ROWS, WIDTH, device=device)).sum().backward()

        return step

    found = trace(factory, steps=1)
    assert sizes(found, "inputs") == [BATCH]
    assert events(found, INPUT)[0] == (BATCH, "aten::ones")


def test_a_step_on_a_card_takes_foreach_and_on_a_cpu_it_does_not():
    on_card, on_cpu = (
        {operator for _, operator in events(trace(linear(torch.optim.Adam), target=target))}
        for target in (Target(), CPU)
    )
    assert "aten::_foreach_sqrt" in on_card
    assert not any("foreach" in operator for operator in on_cpu)


def test_what_adam_keeps_on_the_host_is_no_memory_of_the_card():
    # Its step counters; on a CPU they are where all else is, two of one float.
    assert FLOAT not in sizes(trace(linear(torch.optim.Adam)), "optimizer state")
    assert sizes(trace(linear(torch.optim.Adam), target=CPU), "optimizer state").count(FLOAT) == 2
    on_card = trace(linear(torch.optim.Adam, fused=True))  # which has them beside the parameters
    assert sizes(on_card, "optimizer state").count(FLOAT) == 2


def test_gradients_that_are_kept_are_made_once():
    def factory(device):
        model = nn.Linear(WIDTH, WIDTH, device=device)
        batch = torch.ones(ROWS, WIDTH, device=device)
        used = torch.optim.SGD(model.parameters())

        def step():
            used.zero_grad(set_to_none=False)
            model(batch).sum().backward()
            used.step()

        return step

    # From the second step on they are added to what is there.
    found = trace(factory)
    assert sizes(found, "gradients") == [WEIGHT, BIAS]
    assert sizes(found, "temporaries").count(WEIGHT) == 2


# What counts and what does not


def test_a_batch_on_the_host_counts_when_it_arrives():
    def moved(device):
        return torch.ones(ROWS, WIDTH).to(device)

    assert events(trace(calls(moved), steps=1)) == [(BATCH, "aten::_to_copy")]


def test_what_never_arrives_does_not_count():
    assert events(trace(calls(lambda device: torch.ones(2, 3)), steps=1)) == []


@pytest.mark.parametrize("name", ["tensor", "as_tensor"])
def test_a_constant_is_made_on_the_device_that_is_named(name):
    def made(**where):
        return getattr(torch, name)([1.0, 2.0], **where)

    on_device = trace(calls(lambda device: made(device=device)), steps=1)
    assert events(on_device) == [(2 * FLOAT, "aten::_to_copy")]
    assert events(trace(calls(lambda device: made()), steps=1)) == []


def test_a_constant_like_a_tensor_of_the_device():
    def like(device):
        return torch.ones(1, device=device).new_tensor([1.0, 2.0], device=device)

    assert (2 * FLOAT, "aten::_to_copy") in events(trace(calls(like), steps=1))


def test_views_take_nothing():
    def views(device):
        whole = torch.ones(ROWS, WIDTH, device=device)
        return whole.t()[1:].reshape(-1, ROWS).unsqueeze(0).expand(3, -1, -1).detach()

    assert events(trace(calls(views), steps=1)) == [(BATCH, "aten::ones")]


def test_a_storage_lives_as_long_as_its_last_view():
    def factory(device):
        kept = [torch.ones(ROWS, WIDTH, device=device)[0]]
        return kept.clear

    assert events(trace(factory, steps=1)) == [(BATCH, "aten::ones"), (-BATCH, "")]


def test_operations_in_place_take_nothing():
    def in_place(device):
        return torch.ones(ROWS, WIDTH, device=device).mul_(2).add_(1).relu_().zero_()

    assert events(trace(calls(in_place), steps=1)) == [(BATCH, "aten::ones")]


def test_a_storage_that_grows_is_copied():
    def grows(device):
        return torch.ones(ROWS, WIDTH, device=device).resize_(2 * ROWS, WIDTH)

    # The old one goes when the new one is there, as in `resize_bytes_cuda`.
    assert events(trace(calls(grows), steps=1)) == [
        (BATCH, "aten::ones"),
        (2 * BATCH, "aten::resize_"),
        (-BATCH, "aten::resize_"),
    ]


def test_a_storage_that_need_not_grow_stays():
    def shrinks(device):
        return torch.ones(ROWS, WIDTH, device=device).resize_(1, WIDTH)

    assert events(trace(calls(shrinks), steps=1)) == [(BATCH, "aten::ones")]


def test_a_storage_that_is_resized_by_itself_is_counted():
    def frees_and_takes(device):
        tensor = torch.ones(ROWS, WIDTH, device=device)
        tensor.untyped_storage().resize_(0)
        tensor.untyped_storage().resize_(2 * BATCH)

    found = trace(calls(frees_and_takes), steps=1)
    assert [nbytes for nbytes, _ in events(found) if nbytes] == [
        BATCH,
        -BATCH,
        2 * BATCH,
        -2 * BATCH,
    ]
    assert found.peak_bytes == 2 * BATCH


def test_blocks_at_the_peak_are_counted():
    def many(device):
        kept = [torch.ones(1, device=device) for _ in range(7)]
        return kept[0], torch.ones(0, device=device), kept

    assert trace(calls(many), steps=1).peak_blocks == 7


def test_a_step_keeps_its_result_until_the_next_one_returns():
    kept = trace(linear(), steps=2)
    loss_freed = [
        kept.sites[site][:2]
        for sign, nbytes, site in zip(kept.signs, kept.nbytes, kept.site, strict=True)
        if sign < 0 and nbytes == FLOAT and kept.sites[site].phase == OPTIMIZER
    ]
    assert loss_freed == [(OPTIMIZER, 2)]
    # Else it would be gone before the second: one float less while that runs.
    assert kept.peak_bytes == trace(linear(result=False), steps=2).peak_bytes + FLOAT


def test_tied_weights_are_one_block():
    def factory(device):
        one, other = (nn.Linear(WIDTH, WIDTH, bias=False, device=device) for _ in range(2))
        other.weight = one.weight
        both = nn.Sequential(one, other)
        used = torch.optim.Adam(both.parameters())

        def step():
            both(torch.ones(ROWS, WIDTH, device=device)).sum().backward()
            used.step()
            used.zero_grad()

        return step

    found = trace(factory, steps=1)
    assert sizes(found, "parameters") == [WEIGHT]
    assert sizes(found, "optimizer state") == [WEIGHT, WEIGHT]


def test_a_model_that_is_moved_stays_what_the_optimizer_holds():
    seen = {}

    def factory(device):
        model = nn.Linear(WIDTH, WIDTH)
        used = torch.optim.Adam(model.parameters())
        before = [id(parameter) for parameter in model.parameters()]
        model.to(device)
        held = used.param_groups[0]["params"]
        seen["same"] = before == [id(p) for p in model.parameters()] == [id(p) for p in held]
        seen["parameters"] = all(isinstance(p, nn.Parameter) for p in model.parameters())

        def step():
            model(torch.ones(ROWS, WIDTH, device=device)).sum().backward()
            used.step()
            used.zero_grad()

        return step

    found = trace(factory, steps=2)
    assert seen == {"same": True, "parameters": True}
    assert sizes(found, "parameters") == [WEIGHT, BIAS]
    assert sorted(sizes(found, "optimizer state")) == sorted(2 * [WEIGHT, BIAS])


def test_a_copy_of_a_module_is_of_the_same_trace():
    # peft copies a model's head, to train it beside the one that stays.
    found = []

    def factory(device):
        module = torch.nn.Linear(4, 4).to(device)
        copied = copy.deepcopy(module).to(device)
        found.append(copied.weight.fake_mode is module.weight.fake_mode)
        return lambda: copied(torch.ones(2, 4, device=device)).sum().backward()

    trace(factory, steps=1)
    assert found == [True]


def test_the_bytes_of_a_step_under_autocast():
    def factory(device):
        model = nn.Linear(WIDTH, WIDTH, device=device)
        batch = torch.ones(ROWS, WIDTH, device=device)

        def step():
            with torch.autocast(device_type, dtype=torch.bfloat16):
                loss = model(batch).sum()
            loss.backward()

        return step

    device_type = "cuda"  # without a card torch would only warn, and use float32
    found = trace(factory, steps=1)
    halves = [nbytes for nbytes, operator in events(found, FORWARD) if "_to_copy" in operator]
    assert sorted(halves)[-3:] == sorted([BATCH // 2, WEIGHT // 2, BIAS // 2])
    assert sizes(found, "gradients") == []  # no optimizer has seen them
    # On a card, the autocast of the CPU does nothing.
    device_type = "cpu"
    on_host = events(trace(factory, steps=1), FORWARD)
    assert not any("_to_copy" in operator for _, operator in on_host)


# What is the caller's


def surroundings():
    """All that a trace changes while it runs, or might."""
    return (
        torch.tensor,
        torch.as_tensor,
        "new_tensor" in vars(torch.Tensor),
        torch.get_rng_state,
        torch.utils.swap_tensors,
        torch.autocast.__init__,
        _foreach_utils._get_foreach_kernels_supported_devices,
        optimizer_hooks._get_foreach_kernels_supported_devices,
        tuple(_foreach_utils._foreach_supported_types),
        torch._C._len_torch_dispatch_stack(),
        [
            dict(hooks)
            for hooks in (
                module_hooks._global_forward_hooks,
                module_hooks._global_forward_pre_hooks,
                module_hooks._global_forward_hooks_always_called,
                optimizer_hooks._global_optimizer_pre_hooks,
                optimizer_hooks._global_optimizer_post_hooks,
            )
        ],
        gc.isenabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
    )


@contextlib.contextmanager
def unchanged():
    """Compare all that a trace changes while it runs, before and after."""
    before = surroundings()
    yield
    assert surroundings() == before
    # Operators that were replaced: dropout on a CPU multiplies by a mask of floats.
    with profile() as watch:
        functional.dropout(torch.ones(3), 0.5)
    assert "aten::native_dropout" not in {event.name for event in watch.function_events}


def fails():
    raise ZeroDivisionError("planted")


def seeds(device):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    return functional.dropout(torch.randn(3, 3, device=device), 0.5)


@pytest.mark.parametrize("target", [Target(), CPU], ids=["cuda", "cpu"])
def test_a_trace_leaves_everything_as_it_was(target):
    with unchanged():
        trace(linear(torch.optim.AdamW), target=target)
        trace(calls(seeds), target=target)


@pytest.mark.parametrize("target", [Target(), CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize("factory", [lambda device: fails(), lambda device: fails])
def test_a_factory_or_a_step_that_fails_leaves_everything_as_it_was(factory, target):
    with unchanged(), pytest.raises(ZeroDivisionError, match="planted"):
        trace(factory, target=target)


def test_a_failure_in_the_middle_of_a_backward_pass():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            fails()

    def step(device):
        return Fails.apply(torch.ones(3, requires_grad=True, device=device))

    with unchanged(), pytest.raises(ZeroDivisionError, match="planted"):
        trace(calls(step, backward=True))


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        trace(linear(), steps=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_one_after_another_are_the_same():
    one, other = (trace(linear(torch.optim.Adam)) for _ in range(2))
    assert one.same_events(other)
    assert one.nbytes.tolist() == other.nbytes.tolist()
    assert one.roles() == other.roles()


class Trained:
    """A model of the caller's own, in the middle of its training."""

    def __init__(self, optimizer=torch.optim.AdamW):
        self.model = nn.Linear(WIDTH, WIDTH)
        self.optimizer = optimizer(self.model.parameters(), lr=0.1)
        self.batch = torch.randn(ROWS, WIDTH)
        self.step()
        self.model(self.batch).sum().backward()

    def step(self):
        self.model(self.batch).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self):
        """Every byte of it, and what Python objects they are in."""
        tensors = [*self.model.state_dict().values(), self.batch]
        tensors += [parameter.grad for parameter in self.model.parameters()]
        states = copy.deepcopy(self.optimizer.state_dict())
        tensors += [t for s in states["state"].values() for t in s.values()]
        return (
            [tensor.numpy().tobytes() for tensor in tensors],
            [type(tensor) for tensor in tensors],
            [(id(parameter), id(parameter.grad)) for parameter in self.model.parameters()],
            len(self.optimizer.state),
        )


@pytest.mark.parametrize("target", [Target(), CPU], ids=["cuda", "cpu"])
def test_a_model_and_an_optimizer_outside_stay_as_they_are(target):
    trained = Trained()
    before = trained.state()
    with unchanged():
        trace(linear(torch.optim.AdamW), target=target)
    assert trained.state() == before


def on_its_weights(trained, device):
    return trained.model(torch.ones(ROWS, WIDTH, device=device))


def on_its_batch(trained, device):
    return nn.Linear(WIDTH, WIDTH, device=device)(trained.batch)


def with_its_optimizer(trained, device):
    trained.optimizer.step()


@torch.no_grad()
def in_place(trained, device):
    trained.model.weight.add_(1)


@torch.no_grad()
def copied_in(trained, device):
    trained.model.weight.copy_(torch.ones(WIDTH, WIDTH, device=device))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("target", [Target(), CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize(
    "use", [on_its_weights, on_its_batch, with_its_optimizer, in_place, copied_in]
)
def test_a_tensor_with_data_is_refused_before_anything_is_written(use, target, optimizer):
    trained = Trained(optimizer)
    before = trained.state()
    with unchanged(), pytest.raises(PredictionError, match="a tensor with data") as refused:
        trace(calls(lambda device: use(trained, device)), target=target)
    assert "in the factory" in refused.value.hint
    assert "float32" in refused.value.got
    assert trained.state() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.ones(3, device="cuda:1"),
        lambda device: torch.ones(3, device=device).to("cuda:1"),
        lambda device: nn.Linear(2, 2, device="cuda:1"),
        lambda device: torch.ones(3, device=device).cuda(1),
    ],
)
def test_a_tensor_on_a_card_that_is_not_the_traced_one_is_refused(make):
    # torch makes them without data and without a card, and they would not be counted.
    with unchanged(), pytest.raises(PredictionError, match="another device") as refused:
        trace(calls(make))
    assert "cuda" in refused.value.got
    assert "factory" in refused.value.hint


@pytest.mark.parametrize(
    "call",
    [
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor.unique(),
    ],
)
def test_a_result_whose_size_depends_on_the_data_is_refused(call):
    with unchanged(), pytest.raises(PredictionError, match="depends on the data") as refused:
        trace(calls(lambda device: call(torch.ones(3, device=device))))
    assert refused.value.where.startswith("aten.")


def test_what_happens_after_the_end_is_not_in_the_trace():
    with tracing(Target()) as tracer:
        kept = [torch.ones(ROWS, WIDTH, device=Target().torch_device)]
        found = tracer.finish()
        torch.ones(3, device=Target().torch_device)
        kept.clear()
    assert events(found) == [(BATCH, "aten::ones")]


def test_a_trace_says_with_which_versions_it_was_taken():
    assert dict(trace(linear(), steps=1).versions)["torch"] == version("torch")


def test_gradients_of_each_example_by_torch_func():
    """`vmap` of `grad` makes a gradient per example: rows x the weight's bytes, in one tensor."""

    def factory(device):
        model = nn.Linear(WIDTH, WIDTH, bias=False, device=device)
        rows = torch.ones(ROWS, WIDTH, device=device)

        def loss(weight, row):
            return torch.func.functional_call(model, {"weight": weight}, (row,)).sum()

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
        return lambda: each(model.weight.detach(), rows)

    traced = trace(factory, steps=1)
    assert ROWS * WEIGHT in [nbytes for nbytes, _ in events(traced)]
