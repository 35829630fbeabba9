"""Tracer: runs training steps on tensors without data, and records every allocation and free.

The model, the optimizer and the loop are the real ones; only the data is missing. A tensor on the
traced device is one of torch's fake tensors (`FakeTensorMode`) on `cpu:0`, and the host's are on
`cpu`. To torch these are two devices, so a step counter that Adam keeps on the host, or a batch
before it is copied, does not count as the card's memory. Traced code sees `cuda:0` (`card_view`).
"""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ftbench.prediction.trace import patches
from ftbench.prediction.trace.bitsandbytes_package import imported_bitsandbytes_on_card
from ftbench.prediction.trace.card_tensors import autocast_on_card, tensors_on_card
from ftbench.prediction.trace.card_view import capability_known, card_available
from ftbench.prediction.trace.events import (
    Trace,
)
from ftbench.prediction.trace.fake_mode import TraceFakes
from ftbench.prediction.trace.leftovers import (
    Surroundings,
    globals_kept,
    imports_apart,
    nothing_left,
)
from ftbench.prediction.trace.operators import attention_masked_in_place, cuda_operators
from ftbench.prediction.trace.ranks import Ranks
from ftbench.prediction.trace.storages import storages_resized
from ftbench.prediction.trace.target import Target as Target
from ftbench.prediction.trace.threads import other_threads_refused
from ftbench.prediction.trace.tracer_mode import Tracer
from ftbench.prediction.trace.weight_files import weight_files_without_data
from ftbench.records.prediction import TRACED_STEPS

STEPS = TRACED_STEPS

Step = Callable[[], Any]


def trace(
    factory: Callable[..., Step],
    *,
    steps: int = STEPS,
    target: Target | None = None,
    watch: Callable[[Tracer], None] | None = None,
    ranks: Ranks | None = None,
) -> Trace:
    """Return the memory events of `steps` training steps on any module.

    `factory(device)` is called once, inside the trace; it builds model, optimizer and batch on the
    device that it is given, and returns the function that runs one step. Nothing outside the trace is
    changed. Raises PredictionError if a real tensor is used in the trace.

    The step's result is kept until the next one returns, like a variable of a training loop. There is
    no data: `bool(tensor)` is False and `.item()` is 0 or 1.0, except for questions that `target` answers.
    `watch` is called with the tracer before anything is built.

    With `ranks`, the trace is of one rank of several: torch.distributed has a process group, in which nothing is
    communicated, and a factory with a parameter `mesh` is called with the mesh of all ranks.
    """
    __tracebackhide__ = True  # pytest shows the caller's code
    target = target or Target()
    with (
        group_of(ranks),
        tracing(target, asks_for_card=True, ranks=ranks) as tracer,
        imported_bitsandbytes_on_card(tracer),
    ):
        if watch is not None:
            watch(tracer)
        step = _built(factory, target.shown_device, ranks)
        tracer.begin()
        result = None
        for _ in range(steps):
            tracer.next_step()
            result = step()
        recorded = tracer.finish()
        del step, result
    return recorded


def group_of(ranks: Ranks | None) -> contextlib.AbstractContextManager[None]:
    """Return the context of being one rank of a process group; nothing on one GPU."""
    if ranks is None:
        return contextlib.nullcontext()
    from ftbench.prediction.trace.process_group import process_group

    return process_group(ranks)


def _built(factory: Callable[..., Step], device: torch.device, ranks: Ranks | None) -> Step:
    """Return the step that a factory makes; one that takes a mesh gets it."""
    __tracebackhide__ = True
    if ranks is None or "mesh" not in inspect.signature(factory).parameters:
        return factory(device)
    from ftbench.prediction.trace.process_group import mesh_of

    return factory(device, mesh=mesh_of(ranks, device.type))


def _new_tracer(target: Target, fakes: TraceFakes, ranks: Ranks | None) -> Tracer:
    if ranks is None:
        return Tracer(target, fakes)
    from ftbench.prediction.trace.sharding import RankTracer

    return RankTracer(target, fakes)


@contextlib.contextmanager
def tracing(
    target: Target, *, asks_for_card: bool = False, ranks: Ranks | None = None
) -> Iterator[Tracer]:
    """Run the body on fake tensors and yield the tracer that watches it.

    Tensors say that they are on a card; with `asks_for_card`, `torch.cuda` answers as with one, too. With `ranks`,
    the caller has made their process group (`process_group`). Python's
    cyclic garbage collector is off meanwhile, since its timing depends on the rest of the process.
    """
    collecting, thaw = gc.isenabled(), gc.get_freeze_count() == 0
    gc.disable()
    if (
        thaw
    ):  # explicit collections (accelerate makes one before training) then skip torch's own objects
        gc.freeze()
    fakes, surroundings = TraceFakes(), Surroundings()
    tracer = _new_tracer(target, fakes, ranks)
    try:
        with (
            nothing_left(fakes, surroundings, frozen=thaw),
            contextlib.closing(tracer),
            contextlib.ExitStack() as stack,
        ):
            stack.enter_context(globals_kept())
            for context in _replacements(tracer, target, host_apart=asks_for_card):
                stack.enter_context(context)
            if target.device == "cuda":
                capability = target.compute_capability
                stack.enter_context(
                    card_available(tracer, capability, surroundings.ask)
                    if asks_for_card
                    else capability_known(capability)
                )
            stack.enter_context(tracer.rank_of_many())
            stack.enter_context(fakes)
            stack.enter_context(tracer.hooks())
            stack.enter_context(tracer)
            tracer.start()
            tracer.while_stepping = stack.enter_context
            yield tracer
    finally:
        if collecting:
            gc.enable()


def _replacements(
    tracer: Tracer, target: Target, *, host_apart: bool
) -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yield what is replaced in torch while a trace of this device runs."""
    yield patches.cards_not_seeded()
    yield imports_apart()
    yield patches.modules_move()
    yield storages_resized(tracer.resized)
    yield other_threads_refused(tracer.other_thread)
    yield weight_files_without_data(tracer)
    yield attention_masked_in_place()
    if target.device == "cpu":
        yield patches.replaced(torch, "get_rng_state", tracer.with_state_seen)
        return
    yield tensors_on_card(tracer)
    yield patches.constants_move(target.torch_device)
    yield patches.scalars_assigned_from_host(target.torch_device)
    yield patches.autocast_moves(host_apart=host_apart)
    yield autocast_on_card()
    yield patches.multi_tensor_optimizers()
    yield cuda_operators(target.attention, target.compute_capability)
