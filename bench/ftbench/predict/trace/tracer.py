"""Tracer: runs training steps on tensors without data, and records every allocation and free.

The model, the optimizer and the loop are the real ones; only the data is missing. A tensor on the
traced device is one of torch's fake tensors (`FakeTensorMode`) on `cpu:0`, and the host's are on
`cpu`. To torch these are two devices, so a step counter that Adam keeps on the host, or a batch
before it is copied, does not count as the card's memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftbench.base.errors import PredictionError
from ftbench.predict.trace import patches
from ftbench.predict.trace.autograd import GradientSums, in_backward
from ftbench.predict.trace.events import (
    INPUT,
    OPTIMIZER,
    Kernel,
    Trace,
    TraceBuilder,
)
from ftbench.predict.trace.kernels import kernel_of
from ftbench.predict.trace.operators import (
    cuda_operators,
    result_in_its_storage,
    results_on_card,
)
from ftbench.predict.trace.position import Position
from ftbench.predict.trace.scalar_answers import Answers
from ftbench.predict.trace.storages import Storages
from ftbench.records.prediction import AttentionKernel

# Three steps: Adam's state is made at the end of the first, and tensors that a loop keeps from one
# step to the next (the last outputs) affect reserved memory only in the third.
STEPS = 3

_DEVICES = frozenset({"cpu", "meta"})
_ADD = torch.ops.aten.add.Tensor
_ADD_IN_PLACE = torch.ops.aten.add_.Tensor
_LIFTS = (
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift.default,
)  # constants come with data
_LOCAL_SCALAR = torch.ops.aten._local_scalar_dense.default
_DEVICE = torch.ops.prim.device.default
_TO_COPY = torch.ops.aten._to_copy.default


@dataclasses.dataclass(frozen=True)
class Target:
    """The device that a trace is made for.

    `attention` forces one kernel of scaled dot product attention; None takes torch's choice for each call on a
    card of this compute capability. `padding` says whether batches have padding, for models that read this
    from the attention mask.
    """

    device: Literal["cuda", "cpu"] = "cuda"
    compute_capability: tuple[int, int] = (8, 0)
    attention: AttentionKernel | None = None
    padding: bool = True

    @property
    def torch_device(self) -> torch.device:
        """Return the device on which to build model, optimizer and batch inside a trace."""
        return torch.device("cpu", 0) if self.device == "cuda" else torch.device("cpu")


Step = Callable[[], Any]
# Called after every operator with the operator, its positional and keyword arguments, and its result.
Watch = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]


def trace(
    factory: Callable[[torch.device], Step],
    *,
    steps: int = STEPS,
    target: Target | None = None,
    watch: Callable[[Tracer], None] | None = None,
) -> Trace:
    """Return the memory events of `steps` training steps on any module.

    `factory(device)` is called once, inside the trace; it builds model, optimizer and batch on the
    device that it is given, and returns the function that runs one step. Nothing outside the trace is
    changed. Raises PredictionError if a real tensor is used in the trace.

    The step's result is kept until the next one returns, like a variable of a training loop. There is
    no data: `bool(tensor)` is False and `.item()` is 0 or 1.0, except for questions that `target` answers.
    `watch` is called with the tracer before anything is built.
    """
    target = target or Target()
    with tracing(target) as tracer:
        if watch is not None:
            watch(tracer)
        step = factory(target.torch_device)
        tracer.begin()
        result = None
        for _ in range(steps):
            tracer.next_step()
            result = step()
        recorded = tracer.finish()
        del step, result
    return recorded


@contextlib.contextmanager
def tracing(target: Target) -> Iterator[Tracer]:
    """Run the body on fake tensors and yield the tracer that watches it.

    Python's cyclic garbage collector is off meanwhile, since its timing depends on the rest of the process.
    """
    collecting, thaw = gc.isenabled(), gc.get_freeze_count() == 0
    gc.disable()
    if (
        thaw
    ):  # explicit collections (accelerate makes one before training) then skip torch's own objects
        gc.freeze()
    tracer = Tracer(target)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_generators_kept())
            stack.enter_context(patches.cards_not_seeded())
            stack.enter_context(patches.modules_move())
            if target.device == "cuda":
                stack.enter_context(patches.constants_move(target.torch_device))
                stack.enter_context(patches.scalars_assigned_from_host(target.torch_device))
                stack.enter_context(patches.autocast_moves())
                stack.enter_context(patches.multi_tensor_optimizers())
                stack.enter_context(cuda_operators(target.attention, target.compute_capability))
            else:
                stack.enter_context(
                    patches.replaced(torch, "get_rng_state", tracer.with_state_seen)
                )
            stack.enter_context(_Fakes())
            stack.enter_context(tracer.hooks())
            stack.enter_context(tracer)
            tracer.start()
            tracer.while_stepping = stack.enter_context
            yield tracer
    finally:
        tracer.close()
        if thaw:
            gc.unfreeze()
        if collecting:
            gc.enable()


class _Fakes(FakeTensorMode):
    """The fake mode of all tensors in a trace, also of a module that is copied, as peft copies heads."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Fakes:
        return self


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Restore the random generators at the end, since the traced code may seed them."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Tracer(TorchDispatchMode):
    """Observes every operator, and thereby every storage on the traced device."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target
        self._device = target.torch_device
        self._on_card = target.device == "cuda"
        self._builder = TraceBuilder()
        self._position = Position()
        self._answers = Answers(padding=target.padding)
        self._storages = Storages(self._builder, self._position, self._answers)
        self._sums = GradientSums()
        self._owners: dict[int, str] = {}  # a parameter's id -> the module that has it
        self.while_stepping: Callable[[Any], Any] = lambda context: None
        self.watch: Watch | None = None

    # The progress of the trace.

    @property
    def device(self) -> torch.device:
        """Return the device whose storages are recorded."""
        return self._device

    @property
    def period(self) -> int | str:
        """Return the number of the current step, or `EVALUATION`."""
        return self._position.period

    @property
    def blocks(self) -> int:
        """Return the number of storages recorded so far."""
        return self._builder.blocks

    def block_of(self, tensor: torch.Tensor) -> int | None:
        """Return the number of a tensor's storage; None if it was not recorded."""
        return self._storages.block_of(tensor)

    def start(self) -> None:
        """Calibrate the recognition of in-place sums, and record events from here on."""
        self._sums.calibrate()
        self._storages.closed = False

    def begin(self) -> None:
        """Mark the end of construction: steps come next."""
        self.while_stepping(patches.masks_as_with_data())
        if self._target.device == "cuda":
            self.while_stepping(patches.on_a_card())

    def next_step(self) -> None:
        """Begin a step."""
        self._position.step += 1
        self.phase(INPUT)

    def phase(self, name: str) -> None:
        """Set the phase of the events from here on."""
        self._position.phase = name

    def finish(self) -> Trace:
        """Return the trace; later events are not recorded."""
        self._storages.closed = True
        return self._builder.build(patches.library_versions())

    def close(self) -> None:
        """Stop watching storages."""
        self._storages.close()

    # Observation of operators.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and record its allocations."""
        if func is _DEVICE and isinstance(tensor := args[0], FakeTensor):
            # Two of three calls are this one; without this shortcut they take a tenth of a trace's time.
            in_kernel = tensor.fake_mode.in_kernel_invocation
            return torch.device("meta") if in_kernel else tensor.fake_device
        kwargs = kwargs or {}
        # First, since torch writes to a real tensor before it rejects it.
        _refuse_data(func, args, kwargs)
        if func is _LOCAL_SCALAR:
            return self._answers.of(args[0])
        if func is _ADD and self._sums.in_place(args, kwargs):
            added = args[0].add_(args[1])
            if self.watch is not None and not self._storages.closed:
                self.watch(_ADD_IN_PLACE, args, kwargs, added)
            return added
        if func is _TO_COPY and isinstance(args[0], FakeTensor):
            # A constant has a value, and torch would copy it as a real tensor, to which `cpu:0` and
            # `cpu` are the same.
            args[0].constant = None
        try:
            output = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise PredictionError(
                "the size of a result depends on the data",
                where=str(func),
                hint="only steps whose tensors have the same sizes for any data can be traced",
            ) from error
        output = result_in_its_storage(func, args, kwargs, output)
        if self._on_card:
            output = results_on_card(func, output)
        if not self._storages.closed:
            if self.watch is not None:  # before new storages are recorded
                self.watch(func, args, kwargs, output)
            self._note(func, args, output)
        return output

    def _note(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        leaves = [output] if isinstance(output, torch.Tensor) else tree_leaves(output)
        fakes = [tensor for tensor in leaves if isinstance(tensor, FakeTensor)]
        for tensor in fakes:
            # torch makes fake tensors even on a card that does not exist.
            if tensor.fake_device.type not in _DEVICES and tensor.fake_device != self._device:
                raise PredictionError(
                    "a tensor on another device than the traced one",
                    where=str(func),
                    got=str(tensor.fake_device),
                    expected=f"{self._device}, which stands for the card, or the host",
                    hint="make tensors on the device that the factory is given",
                )
        ours = [tensor for tensor in fakes if tensor.fake_device == self._device]
        if ours:
            site = self._position.site(func)
            with self._builder.kernel(self._kernel(func, args), site):
                for tensor in ours:
                    self._storages.see(tensor, site)
        self._answers.note(func, args, output)

    def _kernel(self, func: Any, args: tuple[Any, ...]) -> Kernel | None:
        return kernel_of(func, args, autograd=in_backward()) if self._on_card else None

    def with_state_seen(self, original: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Return `torch.get_rng_state` with its tensor recorded, which a dispatch mode does not see.

        Checkpointing keeps one per block. It is on the host, so only a trace of a CPU has it.
        """

        def state() -> torch.Tensor:
            made = original()
            if not self._storages.closed:
                self._storages.see(made, self._position.site())
            return made

        return state

    # Hooks: the current module, and the tensors of optimizers.

    @contextlib.contextmanager
    def hooks(self) -> Iterator[None]:
        """Follow modules and optimizers while the context lasts."""
        handles = [
            module_hooks.register_module_forward_pre_hook(self._enter),
            module_hooks.register_module_forward_hook(self._leave, always_call=True),
            optimizer_hooks.register_optimizer_step_pre_hook(self._before_optimizer),
            optimizer_hooks.register_optimizer_step_post_hook(self._after_optimizer),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        if self._position.enter(module):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                self._owners[id(tensor)] = name.rpartition(".")[0]
                self._storages.mark(tensor, "parameters", self._owner(tensor))

    def _leave(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._position.leave()

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._position.phase = OPTIMIZER
        for parameter in _parameters(optimizer):
            self._storages.mark(parameter, "parameters", self._owner(parameter))
            if parameter.grad is not None:
                self._storages.mark(parameter.grad, "gradients", self._owner(parameter))

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, state in optimizer.state.items():
            for value in tree_leaves(state):
                if isinstance(value, torch.Tensor):
                    self._storages.mark(value, "optimizer state", self._owner(parameter))

    def _owner(self, parameter: torch.Tensor) -> str:
        return self._owners.get(id(parameter), "")


def _refuse_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise PredictionError if an operator gets a tensor that was made outside the trace."""
    if func in _LIFTS:
        return
    for argument in (
        *args,
        *kwargs.values(),
    ):  # an operator's arguments are tensors, or lists of them
        for leaf in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                raise PredictionError(
                    "a tensor with data was used in a trace",
                    where=str(func),
                    got=f"{type(leaf).__name__} of {tuple(leaf.shape)}, {leaf.dtype}, on {leaf.device}",
                    expected="tensors that are made in the trace",
                    hint="build model, optimizer and batch in the factory, on the device it is given",
                )


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
