"""The dispatch mode of a trace: it observes every operator, and thereby every storage on the traced device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._C._dynamo.eval_frame import set_eval_frame
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftbench.base.errors import PredictionError
from ftbench.prediction.trace import patches
from ftbench.prediction.trace.autograd import GradientSums, in_backward
from ftbench.prediction.trace.batch_values import BatchValues
from ftbench.prediction.trace.events import (
    AFTER_BACKWARD,
    INPUT,
    OPTIMIZER,
    Kernel,
    Trace,
    TraceBuilder,
)
from ftbench.prediction.trace.fake_mode import TraceFakes
from ftbench.prediction.trace.kernels import kernel_of
from ftbench.prediction.trace.known_sizes import result_of_known_size, with_numbers
from ftbench.prediction.trace.older_torch import KeptInputs
from ftbench.prediction.trace.operators import (
    indices_copied,
    promoted,
    result_in_its_storage,
    results_on_card,
    runnable,
    safe_softmax,
)
from ftbench.prediction.trace.position import Position
from ftbench.prediction.trace.real_tensors import refuse_data
from ftbench.prediction.trace.scalar_answers import Answers
from ftbench.prediction.trace.shown_device import SHOWN, place
from ftbench.prediction.trace.storages import Storages
from ftbench.prediction.trace.streams import Stream, Streams
from ftbench.prediction.trace.target import Target as Target

_FIRST_CPU = torch.device("cpu", 0)
_DEVICES = frozenset({"cpu", "meta"})
_ADD = torch.ops.aten.add.Tensor
_ADD_IN_PLACE = torch.ops.aten.add_.Tensor
_SAFE_SOFTMAX = torch.ops.aten._safe_softmax.default
_LOCAL_SCALAR = torch.ops.aten._local_scalar_dense.default
_DEVICE = torch.ops.prim.device.default
_TO_COPY = torch.ops.aten._to_copy.default

# Called after every operator with the operator, its positional and keyword arguments, and its result.
Watch = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]


class Tracer(TorchDispatchMode):
    """Observes every operator, and thereby every storage on the traced device."""

    def __init__(self, target: Target, fakes: TraceFakes) -> None:
        super().__init__()
        self._fakes = fakes
        self._device = target.torch_device
        self._on_card = target.device == "cuda"
        self._builder = TraceBuilder()
        self._position = Position()
        self.batch_values = BatchValues()
        self._answers = Answers(self.batch_values, padding=target.padding)
        self._kept_inputs = KeptInputs(target.torch_version)
        self.streams = Streams(lambda: self._builder.events, self._reuse)
        self._storages = Storages(self._builder, self._position, self._answers, self.streams)
        self._sums = GradientSums()
        self._owners: dict[int, str] = {}  # a parameter's id -> the module that has it
        self._thread = threading.get_ident()
        self._refused: PredictionError | None = None  # raised in another thread, which may hide it
        self.failed: Any = None  # the last operator that raised an error
        self._numbers_matter = True  # the traced code makes sizes of the numbers that it reads
        self.inside_operator = False  # torch's own code for tensors without data is running
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
    def updating(self) -> bool:
        """Return whether a step's backward pass is over: gradients are clipped, or the optimizer runs."""
        return self._position.site().phase in (AFTER_BACKWARD, OPTIMIZER)

    @property
    def blocks(self) -> int:
        """Return the number of storages recorded so far."""
        return self._builder.blocks

    @property
    def live_bytes(self) -> int:
        """Return the live bytes so far."""
        return self._builder.live_bytes

    @property
    def peak_bytes(self) -> int:
        """Return the largest live bytes so far, since `reset_peak`."""
        return self._builder.peak_bytes

    def reset_peak(self) -> None:
        """Count the largest live bytes from here on."""
        self._builder.peak_bytes = self._builder.live_bytes

    @contextlib.contextmanager
    def numbers_without_effect(self) -> Iterator[None]:
        """Answer every question for a number while the context lasts: no size depends on one."""
        before, self._numbers_matter = self._numbers_matter, False
        try:
            yield
        finally:
            self._numbers_matter = before

    def mark_parameter(self, tensor: torch.Tensor) -> None:
        """Note that a tensor is a part of the model, although no module has it as a parameter or a buffer."""
        self._storages.mark(tensor, "parameters", "")

    def loaded(self, tensor: torch.Tensor) -> None:
        """Record the storage of a tensor that was read from a file, if it is on the traced device."""
        on_card = isinstance(tensor, FakeTensor) and tensor.fake_device == self._device
        if on_card and not self._storages.closed:
            self._storages.see(tensor, self._position.site())

    def count_managed(self, nbytes: int) -> None:
        """Count bytes of CUDA's managed memory, which is not in the events."""
        if not self._storages.closed:
            self._builder.managed_bytes += nbytes

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

    def next_step(self) -> None:
        """Begin a step."""
        self._position.step += 1
        self.phase(INPUT)

    def phase(self, name: str) -> None:
        """Set the phase of the events from here on."""
        self._position.phase = name

    def finish(self) -> Trace:
        """Return the trace; later events are not recorded. Raises what was refused in other threads."""
        self._storages.closed = True
        if self._refused is not None:
            raise self._refused
        return self._builder.build(patches.library_versions())

    def close(self) -> None:
        """Stop watching storages."""
        self._storages.close()
        self.batch_values.close()

    def resized(self, storage: torch.UntypedStorage) -> None:
        """Record that a storage was resized by itself, outside of any operator."""
        if not (self.inside_operator or self._storages.closed):
            self._storages.resized(storage, self._position.site())

    def used_on(self, tensor: torch.Tensor, stream: Stream) -> None:
        """Note `tensor.record_stream(stream)`: the tensor's block is not reused while the stream uses it."""
        block = self._storages.block_of(tensor)
        if block is not None:
            self.streams.used(block, self._builder.stream_of(block), stream)

    def _reuse(self, block: int) -> None:
        if not self._storages.closed:
            self._builder.reuse(block, self._position.site())

    def rank_of_many(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of what is replaced in torch.distributed: nothing on one GPU."""
        return contextlib.nullcontext()

    def other_thread(self, operator: str) -> None:
        """Raise PredictionError in every thread but the trace's own; `finish` raises it again."""
        if threading.get_ident() == self._thread or self._storages.closed:
            return
        self._refused = PredictionError(
            "memory of the card is used in another thread",
            where=operator,
            got=f"the thread {threading.current_thread().name}",
            expected="the thread that runs the steps",
            hint="a trace has one order of allocations: run this part of the steps in their own thread",
        )
        raise self._refused

    # Observation of operators.

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return whether torch is to turn its compiler off in every call, which takes longer than most calls."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and record its allocations."""
        if func is _DEVICE and isinstance(tensor := args[0], FakeTensor):
            # Two of three calls are this one; without this shortcut they take a tenth of a trace's time.
            in_kernel = tensor.fake_mode.in_kernel_invocation
            return torch.device("meta") if in_kernel else tensor.fake_device
        compiler = set_eval_frame(
            None
        )  # what torch does in a call, so that it compiles no code of ours
        try:
            return self._dispatched(func, types, args, dict(kwargs or {}))
        finally:
            set_eval_frame(compiler)

    def _dispatched(
        self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if "device" in kwargs:
            kwargs["device"] = self._place(kwargs["device"])
        self.inside_operator = True
        try:
            return self._run(func, args, kwargs)
        except Exception:
            self.failed = func
            raise
        finally:
            self.inside_operator = False

    def _place(self, device: Any) -> Any:
        """Return the device on which an operator's result is, for the one that it is asked for.

        accelerate calls the CPU of several processes `cpu:0`. A tensor that is moved there is copied, each time,
        and then says that it is on `cpu`.
        """
        if self._on_card:
            return place(device, self._device)
        return self._device if device == _FIRST_CPU else device

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # First, since torch writes to a real tensor before it rejects it.
        refuse_data(func, (*args, *kwargs.values()))
        if func is _LOCAL_SCALAR:
            self.streams.current.synchronize()
            return self._answers.of(
                args[0], in_model=self._position.in_model and self._numbers_matter
            )
        if func is _SAFE_SOFTMAX:
            return safe_softmax(self._run, *args, **kwargs)
        if func is _ADD and self._sums.in_place(args, kwargs):
            added = args[0].add_(args[1])
            self.batch_values.follow(_ADD_IN_PLACE, args, kwargs, added)
            if self.watch is not None and not self._storages.closed:
                self.watch(_ADD_IN_PLACE, args, kwargs, added)
            return added
        if func is _TO_COPY and isinstance(args[0], FakeTensor):
            # A constant has a value, and torch would copy it as a real tensor, to which `cpu:0` and
            # `cpu` are the same.
            args[0].constant = None
        args = with_numbers(self._run, self.batch_values, func, args)
        args = indices_copied(self._run, func, args, on_card=self._on_card)
        if not self._on_card:
            args = promoted(self._run, func, args)
        try:
            operator = runnable(func, args, kwargs, on_card=self._on_card)
            output = self._fakes.run(operator, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            output = result_of_known_size(self.batch_values, func, args, kwargs, error)
        output = result_in_its_storage(func, args, kwargs, output)
        if self._on_card:
            output = results_on_card(func, output)
        if not self._storages.closed:
            if self.watch is not None:  # before new storages are recorded
                self.watch(func, args, kwargs, output)
            self._note(func, args, kwargs, output)
        return output

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        leaves = [output] if isinstance(output, torch.Tensor) else tree_leaves(output)
        ours = []
        for tensor in leaves:
            if not isinstance(tensor, FakeTensor):
                continue
            if (device := tensor.fake_device) == self._device:
                ours.append(tensor)
            elif (
                device.type not in _DEVICES
            ):  # torch makes fake tensors even on a card that does not exist
                raise PredictionError(
                    "a tensor on another device than the traced one",
                    where=str(func),
                    got=str(device),
                    expected=f"{SHOWN if self._on_card else self._device}, or the host",
                    hint="make tensors on the device that the factory is given",
                )
        if ours:
            site = self._position.site(func)
            with self._builder.kernel(self._kernel(func, args), site):
                for tensor in ours:
                    self._storages.see(tensor, site)
        self._answers.note(func, args, output)
        self._kept_inputs.note(func, args, output)
        self.batch_values.follow(func, args, kwargs, output)

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


def _parameters(optimizer: torch.optim.Optimizer) -> Sequence[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
